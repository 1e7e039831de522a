package options

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/spf13/pflag"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// notKeys are the options that a file cannot set.
var notKeys = []string{"config", "check-config", "force-old", "takeover", "version", "help"}

// configFile is the path of the configuration, which need not be there when none was
// named.
func (o *Options) configFile() string {
	if o.file == "" {
		return o.program.DefaultConfig
	}
	return o.file
}

// configure sets what the configuration file says and the command line does not.
func (o *Options) configure() error {
	flags := o.flags
	file, err := o.world.Load(o.configFile())
	if errors.Is(err, fs.ErrNotExist) && o.file == "" {
		file, err = &File{}, nil
	}
	if err != nil {
		return err
	}
	typed := make(map[string]bool)
	flags.Visit(func(f *pflag.Flag) { typed[f.Name] = true })
	if err := file.Apply("", keySet(flags), typed); err != nil {
		return err
	}
	o.Settings = make(map[string]string)
	keySet(flags).VisitAll(func(f *pflag.Flag) { o.Settings[f.Name] = f.Value.String() })
	o.PerVolume = make(map[string]virstor.Config)
	for _, volume := range file.Volumes() {
		c, err := o.volumeConfig(file, volume, typed)
		if err != nil {
			return err
		}
		o.PerVolume[volume] = c
	}
	return nil
}

// volumeConfig is what the section of a volume makes of the policies of all.
func (o *Options) volumeConfig(file *File, volume string, typed map[string]bool) (virstor.Config, error) {
	own, flags := *o, o.flags
	set := pflag.NewFlagSet(volume, pflag.ContinueOnError)
	own.declarePolicies(set)
	own.boundPolicies(set)
	var err error
	set.VisitAll(func(f *pflag.Flag) { err = errors.Join(err, f.Value.Set(flags.Lookup(f.Name).Value.String())) })
	if err != nil {
		return virstor.Config{}, fmt.Errorf("policies of %s: %w", volume, err)
	}
	if err := file.Apply(volume, set, typed); err != nil {
		return virstor.Config{}, err
	}
	set.VisitAll(func(f *pflag.Flag) {
		if value := f.Value.String(); value != flags.Lookup(f.Name).Value.String() {
			o.Settings["[volume "+volume+"] "+f.Name] = value
		}
	})
	return own.Policies(), nil
}

// keySet is flags without those that are no keys.
func keySet(flags *pflag.FlagSet) *pflag.FlagSet {
	keys := pflag.NewFlagSet("", pflag.ContinueOnError)
	keys.SortFlags = false
	flags.VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(notKeys, f.Name) {
			keys.AddFlag(f)
		}
	})
	return keys
}
