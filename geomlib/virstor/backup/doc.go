// Package backup keeps the metadata and the allocation map of a volume in a small
// file and writes them back. It holds no data: a backup says where the data was
// at its time, and is of use as long as nothing was allocated, moved or freed
// since.
//
// A file is a magic, a header in JSON, the map as runs of allocated chunks, and
// a SHA-256 of all that.
package backup
