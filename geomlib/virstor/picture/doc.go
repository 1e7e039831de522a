// Package picture draws where a virtual disk is filled and how full each of its
// components is: for a terminal, as SVG, and as numbers.
package picture
