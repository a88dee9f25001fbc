package peers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/author/refusal"
)

// Cases about what is around the code: the kernel's rules, other processes,
// other roots, and binaries of an unusual make.
var (
	terminal = library.add("terminal", `
static volatile int events;
static void *watches(void *a) {
	int status;
	while (waitpid((long)a, &status, WUNTRACED | WCONTINUED) > 0) events++;
	return 0;
}
long terminal_watch(long pid) {
	pthread_t t;
	return pthread_create(&t, 0, watches, (void *)pid);
}
long terminal_events(long n) { return events; }
long terminal_work(long x) { return x * 10 + (x >> 1); }
`)
	filtered = library.add("filter", `
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
static long install(struct sock_filter *code, int n) {
	struct sock_fprog prog = {n, code};
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}
// filter_protect kills whoever maps, unmaps or protects memory.
long filter_protect(long x) {
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_munmap, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	return install(code, 6);
}
// filter_strict lets nothing pass but reading, writing and the end.
long filter_strict(long x) {
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_read, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	return install(code, 6);
}
long filter_break(long x) { return mprotect(&x, 1, PROT_READ); }
long filter_work(long x) { return x * 10 + (x >> 1); }
`)
	// GLIBC_PRIVATE names are for the parts of the C library alone; a binary that
	// has a slot for one keeps it.
	private = library.add("glibcprivate", `
extern size_t __pthread_get_minstack(const pthread_attr_t *);
long glibc_private(long x) {
	pthread_attr_t a;
	pthread_attr_init(&a);
	return __pthread_get_minstack(&a) ? x + 1 : 0;
}
`)
	// Notes of others stand before the one that matters, in one segment and in others.
	noted = (&binary{name: "libnoted.so", flags: []string{"-shared"}}).add("notes", `
asm(".pushsection .note.a.first,\"a\",@note; .balign 4; .long 6, 5, 3; .asciz \"OTHER\"; .balign 4; .byte 1,2,3,4,5; .balign 4; .popsection");
asm(".pushsection .note.b.second,\"a\",@note; .balign 8; .long 4, 16, 5; .asciz \"GNU\"; .quad 1, 2; .popsection");
long notes(long x) { return x * 10 + (x >> 1); }
`)
	// Its code holds an address that the loader writes into it.
	textrel = (&binary{name: "libtextrel.so", flags: []string{"-shared", "-Wl,-z,notext"}}).add("textrel", `
static long base = 1000;
long textrel_fixed(long x) { return ++base + x; }
long textrel_plain(long x) { return x * 10 + (x >> 1); }
`, "-fno-pic", "-mcmodel=large")
	thrower = (&binary{name: "libthrow.so", flags: []string{"-shared"}}).add("exceptions.cc", `
static volatile long seen;
extern "C" KEEP long exceptions_throw(long x) { if (x > 100) throw x; return x; }
extern "C" KEEP long exceptions_through(long x) { return exceptions_throw(x) + 1; }
extern "C" long exceptions_catch(long x) { try { return exceptions_through(x); } catch (long v) { return -v; } }
extern "C" long exceptions_none(long x) noexcept { seen = x; return x * 3; }
`)
	// The same program without a loader.
	static          = &binary{name: "static", code: "-fPIE", flags: []string{"-static"}}
	_, staticSource = static.add("main", programText, "-DSTATIC"), static.add("simplest", inProgram.text)
)

func surroundings(t *testing.T) {
	const old, new = "x * 10 + (x >> 1)", "x * 20 + (x >> 1)"
	// The parent of a process sees nothing of its stops.
	t.Run("terminal", func(t *testing.T) {
		p := start(t)
		child := p.number("fork")
		p.want(fmt.Sprint("terminal_watch ", child), "0")
		fix := terminal.fix(t, 1, old, new)
		for range 5 {
			for _, op := range []struct {
				op   operation
				want userspace.Outcome
			}{{engine(patience).Apply, userspace.Patched}, {engine(patience).Revert, userspace.Reverted}} {
				got := all(t, op.op, fix)
				if got[child].Outcome != op.want || got[p.pid()].Outcome != op.want {
					t.Errorf("%+v, want both %s", got, op.want)
				}
			}
		}
		p.want("child terminal_work 1", "10")
		p.want("terminal_events", "0")
	})
	t.Run("syscall_restart", syscallRestart)
	// The library's own mappings are what they were, and none of the image's
	// can be written and run.
	t.Run("memory_protection", func(t *testing.T) {
		p := start(t)
		mapped := func() (lines []string) {
			for _, line := range p.maps() {
				if strings.Contains(line, "/") {
					lines = append(lines, line)
				}
				if f := strings.Fields(line); strings.Contains(f[1], "wx") {
					t.Errorf("writable and executable: %s", line)
				}
			}
			return lines
		}
		before := mapped()
		fix := dozens.fix(t, 1, "12 * x", "13 * x")
		p.apply(fix)
		if after := mapped(); !slices.Equal(before, after) {
			t.Errorf("mappings of files %q, before %q", after, before)
		}
		p.revert(fix)
		mapped()
	})
	t.Run("mprotect_patch", func(t *testing.T) {
		p := start(t)
		fix := filtered.fix(t, 1, old, new)
		p.want("filter_work 1", "10")
		p.want("filter_protect", "0")
		p.apply(fix)
		p.want("filter_work 1", "20")
		p.revert(fix)
		p.want("filter_work 1", "10")
		// The filter is still in force.
		p.say("filter_break")
		if err := p.cmd.Wait(); err == nil || !strings.Contains(err.Error(), "bad system call") {
			t.Errorf("the program ended with %v, want its filter to kill it", err)
		}
	})
	t.Run("seccomp_disable", func(t *testing.T) {
		p := start(t)
		fix := filtered.fix(t, 1, old, new)
		p.want("filter_work 1", "10")
		p.want("filter_strict", "0")
		p.apply(fix)
		p.want("filter_work 1", "20")
		p.revert(fix)
		p.want("filter_work 1", "10")
		p.apply(fix)
		p.want("filter_work 1", "20")
	})
	t.Run("chroot", func(t *testing.T) {
		root := otherRoot(t)
		cmd := exec.Command("/program")
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
		cmd.Dir, cmd.Env = "/", []string{"LD_PRELOAD=/libcase.so"}
		p := launch(t, cmd)
		fix := dozens.fix(t, 1, "12 * x", "13 * x")
		p.apply(fix)
		p.want("numserv_dozen 1", "13")
		p.revert(fix)
		p.want("numserv_dozen 1", "12")
	})
	// A program with a C library of its own, started by that library's loader.
	t.Run("run_libc", func(t *testing.T) {
		root := otherRoot(t)
		cmd := exec.Command(root+"/lib64/ld-linux-x86-64.so.2", "--library-path", root+"/lib/x86_64-linux-gnu", root+"/program")
		cmd.Env = []string{"LD_PRELOAD=" + root + "/libcase.so"}
		p := launch(t, cmd)
		if !slices.ContainsFunc(p.maps(), func(s string) bool { return strings.HasSuffix(s, root+"/lib/x86_64-linux-gnu/libc.so.6") }) {
			t.Fatal("it does not run on its own C library")
		}
		one, two := dozens.fix(t, 1, "12 * x", "13 * x"), inProgram.fix(t, 1, "x + 1", "x + 2")
		p.apply(one)
		p.apply(two)
		p.want("numserv_dozen 1", "13")
		p.want("simplest 1", "3")
	})
	t.Run("glibc_private", func(t *testing.T) {
		p := start(t)
		fix := private.fix(t, 1, "? x + 1 : 0", "? x + 2 : 0")
		p.want("glibc_private 1", "2")
		p.apply(fix)
		p.want("glibc_private 1", "3")
	})
	t.Run("notes", func(t *testing.T) {
		p := startWith(t, noted.binary)
		p.apply(noted.fix(t, 1, old, new))
		p.want("notes 1", "20")
	})
	// What the loader has not touched can be patched. Where it wrote into the
	// code, the code is not the binary's, and it is left alone.
	t.Run("textrel", func(t *testing.T) {
		p := startWith(t, textrel.binary)
		fix := textrel.fix(t, 1, old, new)
		p.apply(fix)
		p.want("textrel_plain 1", "20")
		p.want("textrel_fixed 1", "1002")
		bad := textrel.fix(t, 2, "++base + x", "++base - x")
		if r := p.does(engine(patience).Apply, bad, userspace.Failed); !strings.Contains(r.Reason, "textrel_fixed") {
			t.Errorf("reason %q, want the function named", r.Reason)
		}
		p.want("textrel_plain 1", "20")
		p.want("textrel_fixed 1", "1003")
	})
	// Exceptions find their way through code that is described to them, which a
	// patch is not: functions in their way are refused when the patch is built.
	t.Run("exception_handling", func(t *testing.T) {
		for _, pair := range [][2]string{{"exceptions_throw(x) + 1", "exceptions_throw(x) + 2"}, {"return -v", "return -v - 1"}, {"x > 100", "x > 200"}} {
			if _, err := thrower.try(t, 1, pair[:]...); !refusal.Is(err, refusal.Exceptions) {
				t.Errorf("%s: %v, want it refused because of exceptions", pair[1], err)
			}
		}
		p := startWith(t, thrower.binary)
		if _, err := thrower.try(t, 1, "x * 3", "x * 4"); err != nil {
			t.Logf("a function that throws nothing: %v", err)
		} else {
			p.apply(thrower.fix(t, 1, "x * 3", "x * 4"))
			p.want("exceptions_none 1", "4")
		}
		p.want("exceptions_catch 1", "2")
		p.want("exceptions_catch 101", "-101") // through the patched library
	})
	t.Run("tls", tlsShared)
	t.Run("static", func(t *testing.T) {
		static.build(t)
		p := launch(t, exec.Command(static.path))
		fix := staticSource.fix(t, 1, "x + 1", "x + 2")
		p.apply(fix)
		p.want("simplest 1", "3")
		p.revert(fix)
		p.want("simplest 1", "2")
	})
}

// otherRoot makes a folder with the program and all that it needs.
func otherRoot(t *testing.T) string {
	t.Helper()
	program.build(t)
	library.build(t)
	root, err := folder()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	files := map[string]string{"program": program.path, "libcase.so": library.path}
	for _, f := range []string{"lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6"} {
		files[f] = "/" + f
	}
	for to, from := range files {
		to = filepath.Join(root, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := run("/", "cp", "-L", from, to); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

var waits = library.add("restart", `
#include <poll.h>
#include <linux/aio_abi.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <linux/futex.h>
static volatile int began;
static volatile long interrupted;
static int pair(int timed) {
	int p[2];
	struct timeval tv = {3600, 0};
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, p)) abort();
	if (timed && setsockopt(p[0], SOL_SOCKET, timed == 2 ? SO_SNDTIMEO : SO_RCVTIMEO, &tv, sizeof tv)) abort();
	return p[0];
}
static int listening(int timed) {
	struct sockaddr_un a = {AF_UNIX};
	struct timeval tv = {3600, 0};
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(s, (void *)&a, sizeof a.sun_family) || listen(s, 1)) abort();
	if (timed && setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv)) abort();
	return s;
}
static long call(long kind) {
	struct timespec hour = {3600, 0};
	struct epoll_event ev;
	struct io_event done;
	char b[64];
	struct iovec v = {b, sizeof b};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	struct sembuf down = {0, -1, 0};
	struct itimerspec later = {{0, 0}, {3600, 0}};
	static int word;
	int p[2], fd;
	sigset_t set;
	sem_t sem;
	aio_context_t aio = 0;
	fd_set fds;
	switch (kind) {
	case 0: if (pipe(p)) abort(); return read(p[0], b, 1);
	case 1: return nanosleep(&hour, 0);
	case 2: return clock_nanosleep(CLOCK_MONOTONIC, 0, &hour, 0);
	case 3: return poll(0, 0, -1);
	case 4: return ppoll(0, 0, &hour, 0);
	case 5: FD_ZERO(&fds); return select(0, &fds, 0, 0, 0);
	case 6: return epoll_wait(epoll_create1(0), &ev, 1, -1);
	case 7: sigemptyset(&set); return epoll_pwait(epoll_create1(0), &ev, 1, 3600000, &set);
	case 8: return syscall(SYS_epoll_pwait2, epoll_create1(0), &ev, 1, &hour, 0, 8);
	case 9: sem_init(&sem, 0, 0); return sem_wait(&sem);
	case 10: return syscall(SYS_futex, &word, FUTEX_WAIT, 0, &hour, 0, 0);
	case 11: return semop(semget(IPC_PRIVATE, 1, 0600), &down, 1);
	case 12: return semtimedop(semget(IPC_PRIVATE, 1, 0600), &down, 1, &hour);
	case 13: return msgrcv(msgget(IPC_PRIVATE, 0600), b, 8, 0, 0);
	case 14: sigemptyset(&set); sigaddset(&set, SIGUSR2); pthread_sigmask(SIG_BLOCK, &set, 0); return sigtimedwait(&set, 0, &hour);
	case 15: sigemptyset(&set); sigaddset(&set, SIGUSR2); pthread_sigmask(SIG_BLOCK, &set, 0); return sigwaitinfo(&set, 0);
	case 16: return recv(pair(0), b, 1, 0);
	case 17: return recv(pair(1), b, 1, 0);
	case 18: return read(pair(1), b, 1);
	case 19: return recvmsg(pair(1), &m, 0);
	case 20: return accept(listening(0), 0, 0);
	case 21: return accept(listening(1), 0, 0);
	case 22: return read(eventfd(0, 0), b, 8);
	case 23: fd = timerfd_create(CLOCK_MONOTONIC, 0); timerfd_settime(fd, 0, &later, 0); return read(fd, b, 8);
	case 24: return read(inotify_init(), b, sizeof b);
	case 25: if (syscall(SYS_io_setup, 1, &aio)) abort(); return syscall(SYS_io_getevents, aio, 1, 1, &done, 0);
	case 26: fd = pair(1); return readv(fd, &v, 1);
	case 27: sigemptyset(&set); return sigsuspend(&set);
	case 28: return pause();
	case 29: { struct mmsghdr mm = {m}; return syscall(SYS_recvmmsg, pair(1), &mm, 1, 0, 0); }
	case 30: return syscall(SYS_accept4, listening(1), 0, 0, 0);
	case 31: {
		char params[120] = {0};
		fd = syscall(SYS_io_uring_setup, 4, params);
		return fd < 0 ? pause() : syscall(SYS_io_uring_enter, fd, 0, 1, 1, 0, 0);
	}
	case 32: fd = pair(2); while (send(fd, b, sizeof b, 0) > 0) { } return 0;
	case 33: fd = pair(2); while (write(fd, b, sizeof b) > 0) { } return 0;
	}
	return -2;
}
static void *enters(void *a) {
	__atomic_fetch_add(&began, 1, __ATOMIC_SEQ_CST);
	call((long)a);
	__atomic_fetch_or(&interrupted, 1L << (long)a, __ATOMIC_SEQ_CST);
	return 0;
}
long syscall_restart_start(long kind) {
	pthread_t t;
	return pthread_create(&t, 0, enters, (void *)kind);
}
long syscall_restart_ended(long n) { return interrupted; }
long syscall_restart_began(long n) { return began; }
long syscall_restart_work(long x) { return x * 10 + (x >> 1); }
`)

// syscallRestart stops threads that wait in every way there is. Nobody wakes
// them, so none may come back.
func syscallRestart(t *testing.T) {
	const kinds = 34
	fix := waits.fix(t, 1, "x * 10", "x * 20")
	p := start(t)
	for kind := range kinds {
		p.want(fmt.Sprint("syscall_restart_start ", kind), "0")
	}
	p.reaches("syscall_restart_began", kinds)
	for end := time.Now().Add(patience); !p.sleeps(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the threads do not come to rest")
		}
	}
	for range 5 {
		a := p.apply(fix)
		p.want("syscall_restart_work 1", "20")
		r := p.revert(fix)
		if kinds := p.number("syscall_restart_ended"); kinds != 0 {
			t.Fatalf("calls ended, by their numbers: %b (%d and %d tries, stops %v and %v)", kinds, a.Tries, r.Tries, a.Stop, r.Stop)
		}
	}
}

// sleeps reports whether all threads of the program sleep.
func (p *process) sleeps() bool {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.pid()))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return false
		}
		if s := string(text); !strings.HasPrefix(s[strings.LastIndexByte(s, ')')+1:], " S") {
			return false
		}
	}
	return true
}
