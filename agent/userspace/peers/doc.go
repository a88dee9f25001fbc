// Package peers shows with running programs that Livemend masters what other
// live patchers of user space test: every case in the lists of libcareplus and
// libpulp has a test of the same meaning here, named likewise. Each goes the
// whole way: C is compiled twice, the author tools make the patch, the engine
// applies it to a process. docs/peer-cases.md is the list. The package holds
// nothing but tests, and they may use nothing of the engine that is not public.
package peers
