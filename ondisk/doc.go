// Package ondisk is the on-disk format of a VIRSTOR volume: the metadata in the
// last sector of every component, the allocation map at the start of component
// 0, the extension block behind the map, and the arithmetic that lays a volume
// out; and of a pool, whose further maps and their directory lie in chunks.
// Everything here is pure: bytes in, values out, no I/O.
//
// Numbers of the metadata and of the extension block are little-endian on every
// machine. The allocation map is in the byte order of the machine that wrote it
// (see Order).
//
// The format is that of FreeBSD's geom_virstor (sys/geom/virstor/g_virstor_md.c
// and lib/geom/virstor/geom_virstor.c); version 2 and the extension block are
// this project's, and so is all that concerns pools.
package ondisk
