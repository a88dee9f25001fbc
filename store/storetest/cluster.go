package storetest

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// startTimeout bounds how long a cluster may take to come up on a busy machine.
const startTimeout = 2 * time.Minute

// errNoPostgres says that the distribution's package is not there.
var errNoPostgres = errors.New("PostgreSQL is not installed (package postgresql): SQLite alone is tested")

// cluster is a PostgreSQL server of this test binary's own: no TCP, a socket
// in a short path, no fsync.
type cluster struct {
	sockets   string
	guard     io.Closer // closing it, or the end of this process, stops the cluster and removes its folder
	stopped   chan struct{}
	databases atomic.Int64
}

var shared struct {
	sync.Mutex
	cluster *cluster
	err     error
}

// Run runs the tests and then stops the cluster, if one was started, and waits
// for its end. A package that uses this one has
//
//	func TestMain(m *testing.M) { os.Exit(storetest.Run(m)) }
//
// Without it the cluster still ends by itself, a moment after the tests.
func Run(m *testing.M) int {
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil {
		return code
	}
	if err := shared.cluster.guard.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "stopping PostgreSQL:", err)
		return max(code, 1)
	}
	<-shared.cluster.stopped
	return code
}

// private returns this binary's cluster, started at the first call.
func private(t testing.TB) *cluster {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil && shared.err == nil {
		shared.cluster, shared.err = start()
	}
	if errors.Is(shared.err, errNoPostgres) {
		t.Skip(shared.err)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.cluster
}

// programs returns the folder of the newest installed PostgreSQL's programs.
func programs() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", errNoPostgres
	}
	major := func(path string) int {
		n, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
		if err != nil {
			return 0 // not a version: the last choice
		}
		return n
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return major(a) - major(b) })
	return filepath.Dir(newest), nil
}

// guardScript runs the server given as its arguments until its standard input
// ends, which also happens when the test binary is killed, and then leaves
// nothing behind.
const guardScript = `base=$1; shift
"$@" &
server=$!
cat >/dev/null
kill -QUIT "$server"
wait "$server"
rm -rf -- "$base"`

func start() (_ *cluster, err error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	// Not TMPDIR: the path of a socket holds 107 bytes, and the server's user
	// has to be able to enter.
	base, err := os.MkdirTemp("/tmp", "lmpg")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(base))
		}
	}()
	home := filepath.Join(base, "d")
	as, err := prepare(base, home)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(home, "data")
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	initdb := append(slices.Clone(as), filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres",
		"-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	cmd := exec.CommandContext(ctx, initdb[0], initdb[1:]...)
	cmd.Dir = home
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	server := append(slices.Clone(as), filepath.Join(bin, "postgres"), "-D", data, "-k", home,
		"-c", "listen_addresses=", "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off",
		"-c", "max_connections=200", "-c", "shared_buffers=32MB")
	c, err := run(base, home, server)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// prepare makes the server's folder and returns the words that run a program
// as the server's user: PostgreSQL refuses to run as root.
func prepare(base, home string) ([]string, error) {
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("root cannot run PostgreSQL and its user is missing: %w", err)
	}
	uid, err := strconv.Atoi(account.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(account.Gid)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Chmod(base, 0o711), os.Chown(home, uid, gid)); err != nil {
		return nil, err
	}
	return []string{"setpriv", "--reuid", account.Uid, "--regid", account.Gid, "--clear-groups", "--"}, nil
}

// run starts the server below its guard and waits until it says that it is ready.
func run(base, home string, server []string) (*cluster, error) {
	cmd := exec.Command("sh", append([]string{"-c", guardScript, "guard", base}, server...)...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // an interrupt at the terminal must not kill the guard
	guard, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	logged, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &cluster{sockets: home, guard: guard, stopped: make(chan struct{})}
	ready := make(chan error, 1)
	go func() {
		defer close(c.stopped)
		ready <- awaitReady(logged)
		_, copied := io.Copy(io.Discard, logged) // the server must never block on its log
		ended := cmd.Wait()
		if ended != nil || copied != nil {
			ready <- errors.Join(ended, copied) // read only while starting
		}
	}()
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case err = <-ready:
	case <-timeout.C:
		err = errors.New("PostgreSQL did not start in time")
	}
	if err != nil {
		return nil, errors.Join(err, guard.Close())
	}
	return c, nil
}

func awaitReady(log io.Reader) error {
	var seen strings.Builder
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "ready to accept connections") {
			return nil
		}
		seen.WriteString(lines.Text() + "\n")
	}
	return errors.Join(fmt.Errorf("PostgreSQL ended while it started:\n%s", seen.String()), lines.Err())
}

func (c *cluster) dsn(database string) string {
	return "postgres:///" + database + "?user=postgres&host=" + c.sockets
}

// admin runs one statement outside any test's database.
func (c *cluster) admin(t testing.TB, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	db, err := sql.Open("pgx", c.dsn("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(ctx, statement)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Errorf("%s: %v", statement, err)
	}
}
