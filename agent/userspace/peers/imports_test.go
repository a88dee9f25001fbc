package peers

import "testing"

// Cases that need what the stock binary does not import yet, or its
// thread-local variables.
var (
	glibcInProgram = program.add("refglibc", `
static volatile long seen_glibc;
long ref_glibc(long x) { seen_glibc = x; return x; }
`)
	glibcInLibrary = library.add("sharedrefglibc", `
static volatile long seen_shared_glibc;
long shared_ref_glibc(long x) { seen_shared_glibc = x; return x; }
`)
	dataInLibrary = library.add("refglibcdata", `
static volatile long seen_data;
long ref_glibc_data(long x) { seen_data = x; return x; }
`)
	ifuncInLibrary = library.add("ifunc", `
static volatile long seen_ifunc;
static char seen_text[64] = "aaab";
KEEP long ifunc_known(long x) { char b[64]; memcpy(b, seen_text, x); return b[x - 1]; }
long ifunc_new(long x) { seen_ifunc = x; return x; }
`)
	tlsInProgram = program.add("tlssimple", `
static __thread long own_tls = 10;
long tls_simple(long x) { own_tls += x; return own_tls; }
`)
	tlsInLibrary = library.add("tlsshared", `
__thread long shared_tls = 10;
static __thread long static_tls;
long tls_shared(long x) { shared_tls += x; static_tls++; return shared_tls; }
static void *in_other_thread(void *a) { return (void *)tls_shared((long)a); }
long tls_shared_thread(long x) {
	pthread_t t;
	void *got;
	if (pthread_create(&t, 0, in_other_thread, (void *)x) || pthread_join(t, &got)) abort();
	return (long)got;
}
`)
)

// changes applies a fix, checks what a command then answers, and takes it off.
func changes(t *testing.T, s *source, command, before, after string, pairs ...string) {
	t.Helper()
	p := start(t)
	fix := s.fix(t, 1, pairs...)
	p.want(command, before)
	p.apply(fix)
	p.want(command, after)
	p.revert(fix)
	p.want(command, before)
}

func refGlibc(t *testing.T) {
	changes(t, glibcInProgram, "ref_glibc 5", "5", "4101", "return x;", "return x + getpagesize();")
}

func sharedRefGlibc(t *testing.T) {
	changes(t, glibcInLibrary, "shared_ref_glibc 5", "5", "4101", "return x;", "return x + getpagesize();")
}

// The program's own error output gets the text, so it is the same variable.
func refGlibcData(t *testing.T) {
	p := start(t)
	fix := dataInLibrary.fix(t, 1, "return x;", `return fputs("through the import\n", stderr) < 0 ? -1 : x + 1;`)
	p.apply(fix)
	p.want("ref_glibc_data 5", "6")
	p.end()
	if got := p.told.String(); got != "through the import\n" {
		t.Errorf("standard error got %q", got)
	}
}

func ifunc(t *testing.T) {
	t.Run("known", func(t *testing.T) {
		changes(t, ifuncInLibrary, "ifunc_known 4", "98", "99", "memcpy(b, seen_text, x); return b[x - 1];", "memcpy(b, seen_text, x); return b[x - 1] + 1;")
	})
	t.Run("new", func(t *testing.T) {
		changes(t, ifuncInLibrary, "ifunc_new 5", "5", "8", "seen_ifunc = x; return x;", `seen_ifunc = x; return x + strspn(seen_text, "ax");`)
	})
}

func tlsSimple(t *testing.T) {
	p := start(t)
	fix := tlsInProgram.fix(t, 1, "own_tls += x;", "own_tls += 2 * x;")
	p.want("tls_simple 5", "15")
	p.apply(fix)
	p.want("tls_simple 5", "25")
	p.revert(fix)
	p.want("tls_simple 5", "30")
}

// Every thread goes on with its own.
func tlsShared(t *testing.T) {
	p := start(t)
	fix := tlsInLibrary.fix(t, 1, "shared_tls += x; static_tls++;", "shared_tls += 2 * x; static_tls += 2;")
	p.want("tls_shared 5", "15")
	p.want("tls_shared_thread 5", "15")
	p.apply(fix)
	p.want("tls_shared 5", "25")
	p.want("tls_shared_thread 5", "20")
	p.revert(fix)
	p.want("tls_shared 5", "30")
}
