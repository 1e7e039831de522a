package signature

// mark is a text at a fixed place, which alone says what is there.
type mark struct {
	name string
	text string
	at   []int64 // bytes from the start; negative: from the end
}

// places are n offsets from first on, step bytes apart.
func places(first, step int64, n int) []int64 {
	var all []int64
	for i := range n {
		all = append(all, first+int64(i)*step)
	}
	return all
}

// swapEnds are where the first page ends whose last ten bytes say that it is swap space:
// pages have 4 KiB to 64 KiB.
var swapEnds = []int64{4<<10 - 10, 8<<10 - 10, 16<<10 - 10, 32<<10 - 10, 64<<10 - 10}

// superblocksUFS are where fs_magic of a super block of UFS may be (SBLOCKSEARCH).
var superblocksUFS = []int64{65536 + 1372, 8192 + 1372, 1372, 262144 + 1372}

// marks is the table of what is known by a text alone.
var marks = []mark{
	{"a UFS1 file system", "\x54\x19\x01\x00", superblocksUFS},
	{"a UFS1 file system", "\x00\x01\x19\x54", superblocksUFS},
	{"a UFS2 file system", "\x19\x01\x54\x19", superblocksUFS},
	{"a UFS2 file system", "\x19\x54\x01\x19", superblocksUFS},
	{"an XFS file system", "XFSB", []int64{0}},
	{"an XFS log", "\xfe\xed\xba\xbe", []int64{0}},
	{"a btrfs file system", "_BHRfS_M", []int64{65536 + 64}},
	{"a bcache device", "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", []int64{4096 + 24}},
	{"a bcachefs file system", "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", []int64{4096 + 24}},
	{"an exFAT file system", "EXFAT   ", []int64{3}},
	{"an NTFS file system", "NTFS    ", []int64{3}},
	{"BitLocker encryption", "-FVE-FS-", []int64{3}},
	{"a ReFS file system", "ReFS\x00\x00\x00\x00", []int64{3}},
	{"an ISO 9660 file system", "\x01CD001", places(32768, 2048, 4)},
	{"a UDF file system", "NSR02", places(32769, 2048, 16)},
	{"a UDF file system", "NSR03", places(32769, 2048, 16)},
	{"an APFS container", "NXSB", []int64{32}},
	{"an f2fs file system", "\x10\x20\xf5\xf2", []int64{1024}},
	{"a JFS file system", "JFS1", []int64{32768}},
	{"a ReiserFS file system", "ReIsErFs", []int64{65536 + 52, 8192 + 20}},
	{"a ReiserFS file system", "ReIsEr2Fs", []int64{65536 + 52}},
	{"a ReiserFS file system", "ReIsEr3Fs", []int64{65536 + 52}},
	{"a Reiser4 file system", "ReIsEr4", []int64{65536}},
	{"a GFS2 file system", "\x01\x16\x19\x70\x00\x00\x00\x01", []int64{65536}},
	{"an OCFS2 file system", "OCFSV2", []int64{1024, 2048, 4096, 8192}},
	{"a squashfs file system", "hsqs", []int64{0}},
	{"an EROFS file system", "\xe2\xe1\xf5\xe0", []int64{1024}},
	{"a cramfs file system", "\x45\x3d\xcd\x28", []int64{0}},
	{"a romfs file system", "-rom1fs-", []int64{0}},
	{"an SCO BFS file system", "\xce\xfa\xad\x1b", []int64{0}},
	{"a VxFS file system", "\xf5\xfc\x01\xa5", []int64{1024}},
	{"a HAMMER file system", "\x31\x30\x52\xc5\x4d\x4d\x41\xc8", []int64{0}},
	{"a HAMMER2 file system", "\x11\x20\x17\x05\x32\x4d\x41\x48", []int64{0}},
	{"Ceph BlueStore", "bluestore block device\n", []int64{0}},
	{"Linux swap space", "SWAPSPACE2", swapEnds},
	{"Linux swap space", "SWAP-SPACE", swapEnds},
	{"a hibernated system", "S1SUSPEND\x00", swapEnds},
	{"a hibernated system", "S2SUSPEND\x00", swapEnds},
	{"a hibernated system", "ULSUSPEND\x00", swapEnds},
	{"a hibernated system", "LINHIB0001", swapEnds},
	{"LUKS encryption", "LUKS\xba\xbe", []int64{0}},
	{"LUKS encryption", "SKUL\xba\xbe", []int64{16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10}},
	{"a dm-integrity device", "integrt\x00", []int64{0}},
	{"a dm-verity device", "verity\x00\x00", []int64{0}},
	{"a VDO device", "dmvdo001", []int64{0}},
	{"a Stratis device", "!Stra0tis\x86\xff\x02^\x41rh", []int64{512 + 4, 9*512 + 4}},
	{"a DRBD device", "\x83\x74\x02\x6b", []int64{-4096 + 60}},
	{"a DRBD device", "\x83\x74\x02\x6c", []int64{-4096 + 60}},
	{"a DRBD device", "\x83\x74\x02\x6d", []int64{-4096 + 60}},
	{"a kernel dump of FreeBSD", "FreeBSD Kernel Dump", []int64{-512, -4096}},
	{"a kernel dump of FreeBSD", "TextDump\x00", []int64{-512, -4096}},
	{"Intel RAID metadata", "Intel Raid ISM Cfg Sig. ", []int64{-1024}},
	{"DDF RAID metadata", "\xde\x11\xde\x11", []int64{-512}},
}

// fixed finds what the table of marks has.
func fixed(d *disk) (all []Found) {
	for _, m := range marks {
		for _, at := range m.at {
			if at < 0 {
				at += d.size
			}
			if d.has(at, m.text) {
				all = append(all, Found{Name: m.name})
			}
		}
	}
	return all
}
