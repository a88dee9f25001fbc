package stage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"livemend.dev/livemend/demo/sample"
	"livemend.dev/livemend/demo/world"
)

// Files of a demo server.
const (
	portFile   = "/run/echobeat/port"
	daemonLog  = "/var/log/echobeatd.log"
	AgentLog   = "/var/log/livemend-agent.log"
	AgentState = "/var/lib/livemend"
	CVEList    = "/run/livemend/cvelist"
)

// Host is a demo server that runs the sample service under load.
type Host struct {
	*world.Server
	Addr   string // of the service
	Secret string // that the service must keep
	Load   *sample.Load
}

// StartHost makes a demo server, installs the sample's packages on it, starts
// the service and connects clients to it.
func (s *Stage) StartHost(ctx context.Context, name string, clients int) (*Host, error) {
	server, err := s.StartMachine(ctx, name)
	if err != nil {
		return nil, err
	}
	h := &Host{Server: server, Secret: "session-key-of-" + name + "-" + rand.Text()[:12]}
	if err := h.install(ctx, s.Sample.Packages); err != nil {
		return nil, err
	}
	if err := h.serve(ctx); err != nil {
		return nil, err
	}
	if h.Load, err = sample.StartLoad(context.WithoutCancel(ctx), h.Addr, clients); err != nil {
		return nil, fmt.Errorf("connect clients to %s: %w", name, err)
	}
	s.later(func() error { h.Load.Stop(); return nil })
	return h, nil
}

// StartMachine makes a demo server without a service.
func (s *Stage) StartMachine(ctx context.Context, name string) (*world.Server, error) {
	server, err := world.Start(ctx, world.Options{Name: name, Hide: s.hide})
	if err != nil {
		return nil, err
	}
	s.later(server.Close)
	return server, nil
}

// install installs packages of the machine on the server.
func (h *Host) install(ctx context.Context, packages []string) error {
	args := []string{"-i"}
	for _, p := range packages {
		content, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		inside := filepath.Join("/tmp", filepath.Base(p))
		if err := os.WriteFile(h.Path(inside), content, 0o644); err != nil {
			return err
		}
		args = append(args, inside)
	}
	_, err := h.Run(ctx, nil, "dpkg", args...)
	return err
}

// serve starts the service and waits until it listens.
func (h *Host) serve(ctx context.Context) error {
	for _, dir := range []string{filepath.Dir(sample.SecretPath), filepath.Dir(portFile)} {
		if err := os.MkdirAll(h.Path(dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(h.Path(sample.SecretPath), []byte(h.Secret+"\n"), 0o600); err != nil {
		return err
	}
	_, err := h.Run(ctx, nil, "sh", "-c", `setsid "$1" -s "$2" -a "$3" </dev/null >"$4" 2>&1 &`, "sh",
		sample.DaemonPath, sample.SecretPath, portFile, daemonLog)
	if err != nil {
		return err
	}
	err = Until(ctx, "the service listens", func() (bool, error) {
		text, err := os.ReadFile(h.Path(portFile))
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		port, err := strconv.Atoi(strings.TrimSpace(string(text)))
		h.Addr = "127.0.0.1:" + strconv.Itoa(port)
		return err == nil, err
	})
	if err == nil {
		err = Until(ctx, "every thread of the service runs", h.complete)
	}
	if err != nil {
		log, readErr := os.ReadFile(h.Path(daemonLog))
		return errors.Join(err, readErr, errors.New(string(log)))
	}
	return nil
}

// complete reports whether the service's processes have all their threads.
func (h *Host) complete() (bool, error) {
	processes, err := h.Processes()
	threads := 0
	for _, p := range processes {
		if p.Command == filepath.Base(sample.DaemonPath) {
			threads += p.Threads
		}
	}
	return threads == 1+sample.Workers*sample.ThreadsPerWorker, err
}

// Service lists the processes of the sample service, as the server numbers them.
func (h *Host) Service() ([]world.Process, error) {
	all, err := h.Processes()
	if err != nil {
		return nil, err
	}
	var service []world.Process
	for _, p := range all {
		if p.Command == filepath.Base(sample.DaemonPath) {
			service = append(service, p)
		}
	}
	if want := 1 + sample.Workers; len(service) != want {
		log, err := os.ReadFile(h.Path(daemonLog))
		return service, errors.Join(fmt.Errorf("%s has %d processes of the service instead of %d; its log:\n%s", h.Name, len(service), want, log), err)
	}
	return service, nil
}

// Probe asks the service for more than it should give.
func (h *Host) Probe(ctx context.Context) (sample.Finding, error) {
	found, err := sample.Probe(ctx, h.Addr, h.Secret)
	if err != nil {
		_, serviceErr := h.Service()
		return found, errors.Join(err, serviceErr)
	}
	return found, nil
}

// patience and pace of Until.
const (
	untilWithin = 45 * time.Second
	untilPace   = 20 * time.Millisecond
)

// Until waits for something that is looked at from outside.
func Until(ctx context.Context, what string, there func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, untilWithin)
	defer cancel()
	tick := time.NewTicker(untilPace)
	defer tick.Stop()
	for {
		ok, err := there()
		if err != nil {
			return fmt.Errorf("wait until %s: %w", what, err)
		}
		if ok {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		}
	}
}
