package signature

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/gvirstor/gvirstor/ondisk"
)

// bootSignature is what a boot sector ends with.
const bootSignature = "\x55\xaa"

// tables finds partition tables.
func tables(d *disk) (all []Found) {
	gpt := d.has(512, "EFI PART") || d.has(4096, "EFI PART")
	switch {
	case gpt:
		all = append(all, Found{Name: "a GPT partition table"})
	case d.has(d.size-512, "EFI PART") || d.has(d.size-4096, "EFI PART"):
		all = append(all, Found{Name: "a GPT partition table, of which the second copy is left"})
	}
	if name := bootSector(d); name != "" && !(gpt && protective(d)) {
		all = append(all, Found{Name: name})
	}
	for _, at := range []int64{512, 64, 0} {
		const disklabel = "\x57\x45\x56\x82"
		if d.has(at, disklabel) && d.has(at+132, disklabel) {
			all = append(all, Found{Name: "a BSD disk label"})
		}
	}
	if d.has(0, "ER") && d.has(512, "PM") {
		all = append(all, Found{Name: "an Apple partition map"})
	}
	if d.has(0, "\x0b\xe5\xa9\x41") {
		all = append(all, Found{Name: "an SGI disk label"})
	}
	if d.has(508, "\xda\xbe") && sunChecksum(d) == 0 {
		all = append(all, Found{Name: "a Sun disk label"})
	}
	return all
}

// bootSector is what a boot sector, if there is one, is part of. That of a FAT, NTFS or
// exFAT file system belongs to it.
func bootSector(d *disk) string {
	if !d.has(510, bootSignature) || fat(d) || d.has(3, "NTFS    ") || d.has(3, "EXFAT   ") || d.has(3, "-FVE-FS-") || d.has(3, "ReFS\x00") {
		return ""
	}
	for i := range int64(4) {
		if active := d.little(446+16*i, 1); active&0x7f != 0 {
			return "a boot sector"
		}
	}
	return "an MBR partition table"
}

// protective reports whether the MBR is but the one that protects a GPT.
func protective(d *disk) bool {
	for i := range int64(4) {
		if kind := d.little(446+16*i+4, 1); kind != 0 && kind != 0xee {
			return false
		}
	}
	return true
}

// sunChecksum is 0 over a whole label.
func sunChecksum(d *disk) (sum uint64) {
	for i := range int64(256) {
		sum ^= d.number(2*i, 2, true)
	}
	return sum
}

// fat reports whether a FAT file system's BIOS parameter block is plausible.
func fat(d *disk) bool {
	jump, sector, cluster := d.little(0, 1), d.little(11, 2), d.little(13, 1)
	fats, media := d.little(16, 1), d.little(21, 1)
	return (jump == 0xeb || jump == 0xe9) && sector >= 512 && sector <= 4096 && bits.OnesCount64(sector) == 1 &&
		bits.OnesCount64(cluster) == 1 && d.little(14, 2) > 0 && (fats == 1 || fats == 2) && (media == 0xf0 || media >= 0xf8)
}

// fileSystems finds file systems whose mark is too short to stand alone, or does not say
// enough.
func fileSystems(d *disk) (all []Found) {
	if fat(d) {
		all = append(all, Found{Name: "a FAT file system"})
	}
	if d.has(1024+56, "\x53\xef") {
		all = append(all, Found{Name: extended(d)})
	}
	if d.little(1024, 4) == 2 && d.has(1024+6, "\x34\x34") {
		all = append(all, Found{Name: "a NILFS2 file system"})
	}
	if kind, version := string(d.at(1024, 2)), d.number(1026, 2, true); kind == "H+" && version == 4 || kind == "HX" && version == 5 {
		all = append(all, Found{Name: "an HFS+ file system"})
	}
	if block := d.number(1024+20, 4, true); d.has(1024, "BD") && block > 0 && block%512 == 0 {
		all = append(all, Found{Name: "an HFS file system"})
	}
	if minix(d) {
		all = append(all, Found{Name: "a minix file system"})
	}
	for i := range int64(4) {
		if d.has(i*512, "LABELONE") && d.has(i*512+24, "LVM2 001") {
			all = append(all, Found{Name: "an LVM2 physical volume"})
		}
	}
	end := d.size &^ (256<<10 - 1)
	for _, label := range []int64{0, 256 << 10, end - 512<<10, end - 256<<10} {
		if zfsLabel(d, label) {
			all = append(all, Found{Name: "a ZFS label"})
		}
	}
	return all
}

// extended is which of its kind an ext file system is, by its features.
func extended(d *disk) string {
	const (
		hasJournal    = 0x4                          // of compat
		journalDevice = 0x8                          // of incompat
		before4       = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 // of incompat: what ext2 and ext3 may have
		before4Read   = 0x1 | 0x2 | 0x4              // of ro_compat, likewise
	)
	compat, incompat, readonly := d.little(1024+92, 4), d.little(1024+96, 4), d.little(1024+100, 4)
	switch {
	case incompat&journalDevice != 0:
		return "the journal of an ext file system"
	case incompat&^before4 != 0 || readonly&^before4Read != 0:
		return "an ext4 file system"
	case compat&hasJournal != 0:
		return "an ext3 file system"
	}
	return "an ext2 file system"
}

// minix reports whether there is a minix file system, of version 1 or 2 with a state, or
// of version 3 with a block size.
func minix(d *disk) bool {
	switch d.little(1024+16, 2) {
	case 0x137f, 0x138f, 0x2468, 0x2478:
		if d.little(1024+18, 2) <= 3 {
			return true
		}
	}
	block := d.little(1024+28, 2)
	return d.has(1024+24, "\x5a\x4d") && block >= 1024 && block%1024 == 0
}

// zfsLabel reports whether a label of ZFS begins at off: by its list of pairs, or by an
// uberblock of its ring.
func zfsLabel(d *disk, off int64) bool {
	const pairs, ring = 16 << 10, 128 << 10
	if d.has(off+pairs, "\x01") && d.has(off+pairs+20, "\x00\x00\x00\x07version\x00") {
		return true
	}
	for at := off + ring; at < off+256<<10; at += 1 << 10 {
		const magic = 0x00bab10c
		if d.little(at, 8) == magic || d.number(at, 8, true) == magic {
			return true
		}
	}
	return false
}

// raids finds the super blocks of Linux's md, whose place depends on their version.
func raids(d *disk) []Found {
	const magic = "\xfc\x4e\x2b\xa9"
	if one := (d.size/512 - 16) &^ 7 * 512; one >= 0 {
		for _, at := range []int64{0, 4096, one} {
			if d.has(at, magic) && d.little(at+4, 4) == 1 {
				return found("a Linux RAID member")
			}
		}
	}
	at := d.size&^(64<<10-1) - 64<<10
	if d.has(at, magic+"\x00\x00\x00\x00\x5a\x00\x00\x00") || d.has(at, "\xa9\x2b\x4e\xfc\x00\x00\x00\x00\x00\x00\x00\x5a") {
		return found("a Linux RAID member")
	}
	return nil
}

// geomClasses are GEOM classes by what follows "GEOM::" in their metadata.
var geomClasses = map[string]string{
	"ELI": "GELI encryption", "MIRROR": "a component of gmirror", "STRIPE": "a component of gstripe",
	"CONCAT": "a component of gconcat", "RAID3": "a component of graid3", "SHSEC": "a component of gshsec",
	"JOURNAL": "a component of gjournal", "MULTIPATH": "a path of gmultipath", "LABEL": "a label of glabel",
	"CACHE": "metadata of gcache",
}

// lastSectors finds what GEOM classes keep in the last sector, ours among them. The
// sector may be one of 512 or 4096 bytes, whatever it is here.
func lastSectors(d *disk) (all []Found) {
	for _, size := range []int{d.sector, 512, 4096} {
		at := d.size - int64(size)
		b := d.at(at, size)
		switch {
		case b == nil:
		case d.has(at, "GEOM::VIRSTOR\x00"):
			all = append(all, component(b))
		case d.has(at, "GEOM::"):
			name := geomClass(b)
			if known := geomClasses[name]; known != "" {
				name = known
			} else {
				name = "metadata of the GEOM class " + ondisk.Printable(name)
			}
			all = append(all, Found{Name: name})
		default:
			if s, err := ondisk.DecodeSpare(b); err == nil {
				all = append(all, Found{Name: "a spare of the volume " + ondisk.Printable(s.Name), Volume: s.VolumeID})
			}
		}
	}
	return all
}

// geomClass is the name of the class whose metadata b is.
func geomClass(b []byte) string {
	const field = 16 // bytes of the magic
	name, _, _ := strings.Cut(string(b[len("GEOM::"):field]), "\x00")
	return name
}

// component is what VIRSTOR metadata says that the provider is.
func component(b []byte) Found {
	m, err := ondisk.DecodeMetadata(b)
	if err != nil {
		return Found{Name: "damaged metadata of a volume"}
	}
	return Found{Name: fmt.Sprintf("component %d of the volume %s", m.No, ondisk.Printable(m.Name)), Volume: m.ID}
}
