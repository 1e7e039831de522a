package signature

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
)

// made is something that a tool makes on a file called disk of so many bytes.
type made struct {
	want string
	size int64
	line string // by sh(1), in a folder of its own with a file d/f
}

var tools = []made{
	{"an ext2 file system", 64 << 20, "mkfs.ext2 -F disk"},
	{"an ext3 file system", 64 << 20, "mkfs.ext3 -F disk"},
	{"an ext4 file system", 64 << 20, "mkfs.ext4 -F disk"},
	{"the journal of an ext file system", 64 << 20, "mkfs.ext4 -F -O journal_dev disk"},
	{"an XFS file system", 512 << 20, "mkfs.xfs -f disk"},
	{"a btrfs file system", 256 << 20, "mkfs.btrfs -f disk"},
	{"a FAT file system", 4 << 20, "mkfs.fat -F 12 disk"},
	{"a FAT file system", 32 << 20, "mkfs.fat -F 16 disk"},
	{"a FAT file system", 64 << 20, "mkfs.fat -F 32 disk"},
	{"an exFAT file system", 64 << 20, "mkfs.exfat disk"},
	{"an NTFS file system", 64 << 20, "mkntfs -F -Q disk"},
	{"an f2fs file system", 128 << 20, "mkfs.f2fs -f disk"},
	{"a ReiserFS file system", 64 << 20, "mkfs.reiserfs -ff -q disk"},
	{"a JFS file system", 64 << 20, "mkfs.jfs -q disk"},
	{"a NILFS2 file system", 256 << 20, "mkfs.nilfs2 -f disk"},
	{"a UDF file system", 64 << 20, "mkfs.udf disk"},
	{"a minix file system", 32 << 20, "mkfs.minix disk"},
	{"a minix file system", 32 << 20, "mkfs.minix -3 disk"},
	{"an SCO BFS file system", 8 << 20, "mkfs.bfs disk"},
	{"a cramfs file system", 0, "mkfs.cramfs d disk"},
	{"a squashfs file system", 0, "mksquashfs d disk -noappend"},
	{"an EROFS file system", 4 << 20, "mkfs.erofs disk d"},
	{"an ISO 9660 file system", 0, "xorriso -as mkisofs -o disk d"},
	{"a UFS1 file system", 16 << 20, "makefs -t ffs -o version=1 -s 16m disk d"},
	{"a UFS2 file system", 16 << 20, "makefs -t ffs -o version=2 -s 16m disk d"},
	{"a UFS2 file system", 16 << 20, "makefs -B be -t ffs -o version=2 -s 16m disk d"},
	{"Linux swap space", 64 << 20, "mkswap disk"},
	{"LUKS encryption", 64 << 20, "echo p | cryptsetup -q luksFormat --type luks1 --pbkdf-force-iterations 1000 disk -"},
	{"LUKS encryption", 64 << 20, "echo p | cryptsetup -q luksFormat --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 disk -"},
	{"a dm-verity device", 1 << 20, "truncate -s 1M data; veritysetup format data disk"},
	{"a GPT partition table", 64 << 20, "sgdisk -n 1:0:0 disk"},
	{"an MBR partition table", 64 << 20, "echo , | sfdisk disk"},
	{"a Sun disk label", 64 << 20, "echo label: sun | sfdisk disk"},
	{"an SGI disk label", 64 << 20, "echo label: sgi | sfdisk disk"},
	{"a bcache device", 64 << 20, "make-bcache -B disk"},
}

func TestWhatTheToolsOfLinuxAndFreeBSDMakeIsNamed(t *testing.T) {
	for _, c := range tools {
		t.Run(c.line, func(t *testing.T) {
			program, _, _ := strings.Cut(c.line, " ")
			if _, rest, ok := strings.Cut(c.line, "| "); ok {
				program, _, _ = strings.Cut(rest, " ")
			}
			need(t, program)
			disk := onFile(t, c)
			p, err := geomlib.Open(disk, geomlib.OpenOptions{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if got := names(t, p); !slices.Equal(got, []string{c.want}) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// need skips if a program is missing, and fails if GVIRSTOR_REQUIRE_TOOLS=1.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil && os.Getenv("GVIRSTOR_REQUIRE_TOOLS") == "1" {
		t.Fatalf("%s is missing, and GVIRSTOR_REQUIRE_TOOLS=1", program)
	} else if err != nil {
		t.Skip(err)
	}
}

// onFile has a tool make what it makes, and returns the path of the disk.
func onFile(t *testing.T, c made) string {
	t.Helper()
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	err := errors.Join(os.Mkdir(filepath.Join(dir, "d"), 0o755), os.WriteFile(filepath.Join(dir, "d", "f"), []byte("x"), 0o600))
	if c.size > 0 {
		err = errors.Join(err, os.WriteFile(disk, nil, 0o600), os.Truncate(disk, c.size))
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", c.line)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", c.line, err, out)
	}
	return disk
}
