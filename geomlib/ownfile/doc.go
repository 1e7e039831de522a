// Package ownfile opens files by name without being led astray.
//
// A daemon of root's makes files in folders (locks, records, backups, sockets)
// and reads others (configuration, keys, hooks). Somebody who can put a link, a
// FIFO or a file of his own in the place of one of them has root write where he
// likes, wait for ever, or do as he says. So each is opened through here:
//
//   - Open and Create are for files that this program makes. No link is followed,
//     and what was opened must be a regular file of this user's with one name.
//   - CheckDir is for the folders that they are in.
//   - OpenTrusted, ReadTrusted and CheckCommand are for what an administrator
//     wrote. Links are followed; what they lead to must be a regular file that
//     nobody else can change.
//
// Nothing here waits in open(2). What is refused is ErrUnsafe, whose text names
// the file and the command that mends it. All functions may be called by many
// goroutines.
package ownfile
