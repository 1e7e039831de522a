// Package options is what the daemon is told at its start and by SIGHUP: the command
// line, and the configuration file, whose keys are the long options.
//
//	command line ──► flags ◄── File (lines, and sections of volumes) ◄── World
//	                   │ a flag reads its value, and refuses one that is wrong
//	                   ▼
//	                validate: what contradicts something else
//	                   ▼
//	                Options ──► Policies, Grants, Grower, …
//
// A further option is a field of Options, a line of declare, one of bound where not
// every value of its type will do (values.go has words, sizes and lists), what validate
// has to say of it, and its entries in ggated-virstor(8), ggated-virstor.conf(5) and the
// sample. Tests hold these together.
//
// World is who reads files. The worker of a supervisor reads none, and is told what the
// supervisor has seen. What is wrong in the world, rather than in what is said of it, is
// for --check-config (check.go).
package options
