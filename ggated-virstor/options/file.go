package options

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/ondisk"
)

// maxSize is how many bytes a configuration may have.
const maxSize = 1 << 20

// Setting is one line of a file.
type Setting struct {
	Volume     string // of the section; empty for all volumes and the daemon itself
	Key, Value string
	Line       int // from 1
}

// File is a configuration, its settings in their order.
type File struct {
	Name     string
	Text     []byte
	Settings []Setting
}

// FileError is what is wrong with a line of a file.
type FileError struct {
	File string
	Line int
	Err  error
}

func (e *FileError) Error() string { return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err) }
func (e *FileError) Unwrap() error { return e.Err }

// LoadFile reads the file at path. One that others can write to is refused
// (ownfile.ErrUnsafe): the daemon does what it says. os.DevNull is an empty configuration.
func LoadFile(path string) (*File, error) {
	if fi, err := os.Lstat(path); path == os.DevNull && err == nil && fi.Mode()&fs.ModeCharDevice != 0 {
		return ParseFile(path, strings.NewReader(""))
	}
	f, err := ownfile.OpenTrusted(path, ownfile.Public)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	return ParseFile(path, f)
}

// ParseFile reads a configuration; name is for messages. It fails with *FileError.
func ParseFile(name string, r io.Reader) (*File, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read the configuration %s: %w", name, err)
	}
	if len(text) > maxSize {
		return nil, fmt.Errorf("read the configuration %s: more than %d bytes", name, maxSize)
	}
	file := &File{Name: name, Text: text}
	volume := ""
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		var err error
		switch {
		case line == "" || line[0] == '#':
			continue
		case !utf8.ValidString(line) || strings.ContainsRune(line, 0):
			err = errors.New("not a text")
		case line[0] == '[':
			volume, err = section(line)
		default:
			var s Setting
			s, err = setting(line)
			s.Volume, s.Line = volume, i+1
			file.Settings = append(file.Settings, s)
		}
		if err != nil {
			return nil, &FileError{name, i + 1, err}
		}
	}
	return file, nil
}

// section reads `[volume NAME]`.
func section(line string) (string, error) {
	inner, closed := strings.CutSuffix(line[1:], "]")
	words := strings.Fields(inner)
	if !closed || len(words) != 2 || words[0] != "volume" {
		return "", fmt.Errorf("section %s: [volume NAME] is needed", line)
	}
	if len(words[1]) > ondisk.MaxNameLen {
		return "", fmt.Errorf("section %s: a volume's name has at most %d characters", line, ondisk.MaxNameLen)
	}
	return words[1], nil
}

// setting reads `key = value`.
func setting(line string) (Setting, error) {
	key, value, found := strings.Cut(line, "=")
	key = strings.TrimSpace(key)
	if !found || key == "" || strings.ContainsAny(key, " \t\"") {
		return Setting{}, fmt.Errorf("%q: key = value is needed", line)
	}
	value, err := unquote(strings.TrimSpace(value))
	if err != nil {
		return Setting{}, fmt.Errorf("%s: %w", key, err)
	}
	return Setting{Key: key, Value: value}, nil
}

// unquote takes the double quotes off a value, if it has them.
func unquote(s string) (string, error) {
	if !strings.HasPrefix(s, `"`) {
		return s, nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"' && i == len(s)-1:
			return b.String(), nil
		case s[i] == '"':
			return "", errors.New("text after the closing quote")
		case s[i] == '\\' && i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\\'):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", errors.New("closing quote is missing")
}

// Volumes are the names of the volumes that have a section with a setting, in order.
func (f *File) Volumes() []string {
	var names []string
	seen := make(map[string]bool)
	for _, s := range f.Settings {
		if s.Volume != "" && !seen[s.Volume] {
			seen[s.Volume] = true
			names = append(names, s.Volume)
		}
	}
	return names
}

// Apply sets flags from the settings of a volume, or from those of no volume.
// Keys in fixed are checked against a flag's existence alone: the command line
// has set them. It fails with *FileError.
func (f *File) Apply(volume string, flags *pflag.FlagSet, fixed map[string]bool) error {
	lines := make(map[string]int)
	for _, s := range f.Settings {
		if s.Volume != volume {
			continue
		}
		if err := s.apply(flags, lines, fixed); err != nil {
			return &FileError{f.Name, s.Line, err}
		}
	}
	return nil
}

// apply sets the flag of one setting. lines tells where keys were set before.
func (s Setting) apply(flags *pflag.FlagSet, lines map[string]int, fixed map[string]bool) error {
	flag := flags.Lookup(s.Key)
	switch {
	case flag == nil && s.Volume != "":
		return fmt.Errorf("%s: no such key for a volume", s.Key)
	case flag == nil:
		return fmt.Errorf("%s: no such key", s.Key)
	}
	if before := lines[s.Key]; before != 0 && !repeatable(flag) {
		return fmt.Errorf("%s: set in line %d already", s.Key, before)
	}
	lines[s.Key] = s.Line
	if fixed[s.Key] {
		return nil
	}
	if s.Value == "" && repeatable(flag) {
		return nil // none of them
	}
	err := flag.Value.Set(s.Value)
	if err != nil && asRefused(err) == nil {
		return fmt.Errorf("%s = %s: %w", s.Key, s.Value, err)
	}
	return err
}

// repeatable tells whether the key of flag may be set more than once.
func repeatable(flag *pflag.Flag) bool {
	_, ok := flag.Value.(pflag.SliceValue)
	return ok
}
