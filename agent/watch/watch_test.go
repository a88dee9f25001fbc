package watch

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/agent/guard"
	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/patch"
)

// datagram builds one of the proc connector.
func datagram(what uint32, data ...uint32) []byte {
	b := make([]byte, nlHeader+cnHeader+eventData+4*len(data))
	ne.PutUint32(b, uint32(len(b)))
	ne.PutUint16(b[4:], nlmsgDone)
	cn := b[nlHeader:]
	ne.PutUint32(cn, cnIdxProc)
	ne.PutUint32(cn[4:], cnValProc)
	ne.PutUint32(cn[12:], 8)
	ne.PutUint16(cn[16:], uint16(eventData+4*len(data)))
	ne.PutUint32(cn[cnHeader:], what)
	for i, v := range data {
		ne.PutUint32(cn[cnHeader+eventData+4*i:], v)
	}
	return b
}

func TestDecodeProc(t *testing.T) {
	for name, test := range map[string]struct {
		in   []byte
		want procEvent
		ok   bool
	}{
		"exec":             {datagram(procExec, 12, 10), procEvent{what: procExec, thread: 12, pid: 10, ack: 8}, true},
		"fork":             {datagram(procFork, 12, 10, 20, 20), procEvent{what: procFork, thread: 12, pid: 10, child: 20, ack: 8}, true},
		"new thread":       {datagram(procFork, 12, 10, 20, 10), procEvent{what: procFork, thread: 12, pid: 10, ack: 8}, true},
		"exit by a signal": {datagram(procExit, 12, 10, 0x8b, 17, 1, 1), procEvent{what: procExit, thread: 12, pid: 10, signal: 11, ack: 8}, true},
		"exit with 3":      {datagram(procExit, 10, 10, 0x300, 17, 1, 1), procEvent{what: procExit, thread: 10, pid: 10, ack: 8}, true},
		"answer":           {datagram(procNone, 1), procEvent{what: procNone, errno: 1, ack: 8}, true},
		"unknown kind":     {datagram(0x40, 1, 2, 3, 4), procEvent{}, false},
		"too short":        {datagram(procFork, 12, 10), procEvent{}, false},
		"process 0":        {datagram(procExec, 12, 0), procEvent{}, false},
		"negative process": {datagram(procExec, 12, 0xffffffff), procEvent{}, false},
		"cut off":          {datagram(procExec, 12, 10)[:50], procEvent{}, false},
		"nothing":          {nil, procEvent{}, false},
		"too long":         {append(datagram(procExec, 12, 10), make([]byte, maxMessage)...), procEvent{}, false},
		"of another":       {func() []byte { b := datagram(procExec, 12, 10); b[nlHeader] = 9; return b }(), procEvent{}, false},
		"length lies":      {func() []byte { b := datagram(procExec, 12, 10); b[nlHeader+16] = 0xff; return b }(), procEvent{}, false},
	} {
		if e, ok := decodeProc(test.in); ok != test.ok || ok && e != test.want {
			t.Errorf("%s: %+v, %v; want %+v, %v", name, e, ok, test.want, test.ok)
		}
	}
}

// record builds one of fanotify.
func record(mask uint64, fd, pid int32, more int) []byte {
	b := make([]byte, fanHeader+more)
	ne.PutUint32(b, uint32(len(b)))
	b[4] = fanVersion
	ne.PutUint64(b[8:], mask)
	ne.PutUint32(b[16:], uint32(fd))
	ne.PutUint32(b[20:], uint32(pid))
	return b
}

func TestDecodeOpens(t *testing.T) {
	bad := record(fanOpen, fanNoFD, 3, 0)
	bad[4]++
	long := record(fanOpen, fanNoFD, 3, 0)
	long[0]++
	short := record(fanOpen, fanNoFD, 3, 0)
	ne.PutUint32(short, 0)
	for name, test := range map[string]struct {
		in       []byte
		pids     []int
		lost, ok bool
	}{
		"nothing":          {nil, nil, false, true},
		"two":              {append(record(fanOpen, fanNoFD, 3, 20), record(fanOpen, fanNoFD, 4, 0)...), []int{3, 4}, false, true},
		"with descriptor":  {record(fanOpen, 7, 3, 0), nil, false, false},
		"other namespace":  {record(fanOpen, fanNoFD, 0, 0), nil, false, true},
		"overflow":         {record(fanOverflow, fanNoFD, 0, 0), nil, true, true},
		"other version":    {bad, nil, false, false},
		"longer than read": {long, nil, false, false},
		"no length":        {short, nil, false, false},
		"cut off":          {append(record(fanOpen, fanNoFD, 3, 0), 1, 2), []int{3}, false, false},
	} {
		pids, lost, ok := decodeOpens(test.in)
		if !slices.Equal(pids, test.pids) || lost != test.lost || ok != test.ok {
			t.Errorf("%s: %v, %v, %v", name, pids, lost, ok)
		}
	}
}

func TestParseFault(t *testing.T) {
	for name, test := range map[string]struct {
		in     string
		thread int
		ip     uint64
	}{
		"segfault":         {"6,1,2,-;xz[123]: segfault at 0 ip 000055c2120ab12e sp 00007ffe8d2a5af8 error 6 in xz[112e,55c2120ab000+1000] likely on CPU 1\n SUBSYSTEM=x\n", 123, 0x55c2120ab12e},
		"trap":             {"6,1,2,-;traps: xz[124] trap invalid opcode ip:55d6ccb7813f sp:7fff error:0 in xz[113f,55d6+1000]", 124, 0x55d6ccb7813f},
		"protection":       {"6,1,2,-;traps: xz[125] general protection fault ip:7f00 sp:7fff error:0", 125, 0x7f00},
		"a name with bits": {`6,1,2,-;a\x20[1]: s[126]: segfault at 0 ip 1000 sp 2 error 6`, 126, 0x1000},
		"forged by name":   {"6,1,2,-;traps: [9] trap ip:5 [127] trap invalid opcode ip:1000 sp:7fff error:0", 127, 0x1000},
		"forged by a file": {"6,1,2,-;xz[128]: segfault at 0 ip 1000 sp 2 error 6 in x[9]: segfault at 0 ip 2000 sp[1,2+3]", 128, 0x1000},
		"escaped":          {`6,1,2,-;\xc3\xb6[129]: segfault at 0 ip 1000 sp 2 error 6`, 129, 0x1000},
		"by a program":     {"12,1,2,-;xz[123]: segfault at 0 ip 1000 sp 2 error 6", 0, 0},
		"another line":     {"6,1,2,-;Code: ff ff <c7> 04", 0, 0},
		"no number":        {"6,1,2,-;xz[]: segfault at 0 ip 1000 sp 2", 0, 0},
		"no address":       {"6,1,2,-;xz[1]: segfault at 0", 0, 0},
		"no end":           {"6,1,2,-;xz[1]: segfault at 0 ip 1000", 0, 0},
		"other trap line":  {"6,1,2,-;traps: missing [1] something ip:1000 sp:1", 0, 0},
		"no record":        {"xz[1]: segfault at 0 ip 1000 sp 2", 0, 0},
		"nothing":          {"", 0, 0},
	} {
		thread, ip, ok := parseFault(test.in)
		if ok != (test.thread != 0) || ok && (thread != test.thread || ip != test.ip) {
			t.Errorf("%s: thread %d at %x, %v; want %d at %x", name, thread, ip, ok, test.thread, test.ip)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(datagram(procExit, 12, 10, 0x8b, 17, 1, 1))
	f.Add(record(fanOpen, fanNoFD, 3, 20))
	f.Add([]byte("6,1,2,-;traps: xz[124] trap invalid opcode ip:55d6ccb7813f sp:7fff error:0"))
	f.Add([]byte(`6,1,2,-;\xc3\xb6[129]: segfault at 0 ip 1000 sp 2 error 6`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, ok := decodeProc(b); ok && e.what != procNone && (e.pid <= 0 || e.thread <= 0 || e.signal < 0 || e.signal > 127) {
			t.Errorf("decoded %+v", e)
		}
		pids, _, _ := decodeOpens(b)
		for _, pid := range pids {
			if pid <= 0 {
				t.Errorf("process %d", pid)
			}
		}
		if thread, _, ok := parseFault(string(b)); ok && thread <= 0 {
			t.Errorf("thread %d", thread)
		}
	})
}

func TestLooksArePacedAndBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	var q looks
	for range 100 {
		q.add(7, now) // one process, many events
	}
	var at []time.Duration
	for begin := now; ; {
		d, ok := q.wait(now)
		if !ok {
			break
		}
		now = now.Add(d)
		if pid, ok := q.take(now); !ok || pid != 7 {
			t.Fatalf("no look although it is due")
		}
		at = append(at, now.Sub(begin))
	}
	if len(at) != len(pauses) || at[0] > 5*time.Millisecond || at[len(at)-1] < time.Second || at[len(at)-1] > 2*time.Second {
		t.Errorf("looks at %v", at)
	}
	for pid := 1; pid <= maxWaiting; pid++ {
		if !q.add(pid, now) {
			t.Fatalf("process %d is one too many", pid)
		}
	}
	if q.add(maxWaiting+1, now) {
		t.Error("any number of processes may wait")
	}
	if !q.add(1, now) {
		t.Error("one that waits already is refused")
	}
	n := 0
	for end := now.Add(time.Second); now.Before(end); now = now.Add(time.Millisecond) {
		if _, ok := q.take(now); ok {
			n++
		}
	}
	if most := int(time.Second/lookEvery) + 1; n > most || n < most/2 {
		t.Errorf("%d looks in a second, want at most %d", n, most)
	}
	for pid := 1; pid <= maxWaiting; pid++ {
		q.drop(pid)
	}
	if _, ok := q.wait(now); ok {
		t.Error("processes that ended are still waited for")
	}
	q.add(5, now)
	now = now.Add(time.Second)
	if _, ok := q.take(now); !ok {
		t.Fatal("no look")
	}
	q.retry(5, now)
	now = now.Add(lookEvery)
	if pid, ok := q.take(now); !ok || pid != 5 || q.due[5].step != 1 {
		t.Errorf("after a look that could not be made: %d, %v, %+v", pid, ok, q.due[5])
	}
}

// What the kernel here tells is what is decoded: one real program from start to
// death by its own fault.
func TestRealEvents(t *testing.T) {
	fd, err := openProcs()
	if err != nil {
		t.Skipf("no process events here: %v", err)
	}
	defer unix.Close(fd)
	log, err := openLog()
	if err != nil {
		t.Logf("the kernel's log is not looked at: %v", err)
	} else {
		defer unix.Close(log)
	}
	cmd := exec.Command("/bin/sh", "-c", "kill -SEGV $$")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	_ = cmd.Wait() // killed, as it should be
	var executed, died bool
	buf := make([]byte, maxMessage)
	for end := time.Now().Add(10 * time.Second); !died && time.Now().Before(end); {
		e, some, err := receive(fd, buf)
		if err != nil {
			t.Fatal(err)
		}
		if !some {
			time.Sleep(time.Millisecond)
			continue
		}
		executed = executed || e.what == procExec && e.pid == pid
		died = e.what == procExit && e.pid == pid && e.signal == int(unix.SIGSEGV)
	}
	if !executed || !died {
		t.Errorf("seen to start %v, seen to die %v", executed, died)
	}
}

// Without process events the end of a process on probation is noticed by itself.
func TestEndsAreNoticedWithoutEvents(t *testing.T) {
	g := guard.New(time.Minute)
	w := &Watcher{Guard: g, Log: func(s string) { t.Log(s) }}
	r := running{Watcher: w, procs: -1, opens: -1, log: -1, end: -1, held: map[int]int{}}
	defer r.close()
	var cmds []*exec.Cmd
	for range 3 {
		cmd := exec.Command("/bin/sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
		g.Took(guard.Artifact{1}, cmd.Process.Pid, nil, false)
	}
	r.visit()
	for i, s := range []os.Signal{unix.SIGKILL, unix.SIGSEGV, unix.SIGBUS} {
		if err := cmds[i].Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		left := len(g.Watched())
		for end := time.Now().Add(10 * time.Second); len(g.Watched()) == left && time.Now().Before(end); r.visit() {
			time.Sleep(time.Millisecond)
		}
		if i < 2 && g.Guilty(guard.Artifact{1}) != "" {
			t.Errorf("guilty after %v: %s", s, g.Guilty(guard.Artifact{1}))
		}
		_ = cmds[i].Wait() // killed, as it should be
	}
	if g.Guilty(guard.Artifact{1}) == "" {
		t.Error("two crashes are not noticed")
	}
}

// More processes start than are looked at: that asks for one scan.
func TestFloodAsksForOneScan(t *testing.T) {
	scans := make(chan struct{}, 100)
	r := running{Watcher: &Watcher{Guard: guard.New(0), Scan: func() { scans <- struct{}{} }, Log: func(string) {}}, procs: -1, opens: -1, log: -1, end: -1, held: map[int]int{}}
	for pid := range 10 * maxWaiting {
		r.happened(100_000_000 + pid)
	}
	ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	r.loop(ctx, make(chan int))
	if n := len(scans); n != 1 {
		t.Errorf("%d scans, want 1", n)
	}
}

// Run ends with its context, at once, whatever sources there are.
func TestRunEnds(t *testing.T) {
	w := &Watcher{Guard: guard.New(0), Scan: func() {}, Log: func(s string) { t.Log(s) }, Look: func(context.Context, int) {}, Judge: func(context.Context) {},
		Libraries: func() ([]userspace.Library, []patch.BuildID) { return nil, nil }}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { w.Run(ctx); close(done) }()
	time.Sleep(20 * time.Millisecond) // it has begun, or has not: both must do
	stop()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
}
