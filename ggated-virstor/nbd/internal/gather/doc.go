// Package gather sends several slices together: with one system call that does not wait, or
// as few writes.
package gather

// Most is how many slices there may be.
const Most = 256
