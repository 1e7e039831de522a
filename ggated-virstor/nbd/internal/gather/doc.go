// Package gather sends several slices with one system call that does not wait.
package gather

// Most is how many slices there may be.
const Most = 256
