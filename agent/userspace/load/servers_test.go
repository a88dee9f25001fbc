package load

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// pages are what is asked for. The last one is larger than haproxy can hold.
var pages = []string{
	strings.Repeat("small ", 30),
	strings.Repeat("a page of middle size, ", 300),
	strings.Repeat("a page that fills several records and more than one buffer\n", 1000),
}

// haproxyPages is how many of them haproxy serves.
const haproxyPages = 2

// wait polls until the condition holds.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// write puts a file into a folder and returns its path.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// certificate makes a certificate for the loopback address, and returns it and
// its key as PEM.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "load test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
}

// freePorts returns n ports of the loopback address that nobody listens on.
func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// server is a program that the test started.
type server struct {
	t   *testing.T
	cmd *exec.Cmd
	out bytes.Buffer
}

// start runs a program with the copied libraries, and waits until it listens.
// It ends with the test.
func start(t *testing.T, libraries string, port int, name string, args ...string) *server {
	t.Helper()
	s := &server{t: t, cmd: exec.Command(name, args...)}
	s.cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+libraries)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.end)
	wait(t, name+" to listen", func() bool {
		c, err := net.Dial("tcp4", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil && !s.alive() {
			t.Fatalf("%s ended", name)
		}
		return err == nil && c.Close() == nil
	})
	return s
}

func (s *server) pid() int { return s.cmd.Process.Pid }

// end ends the program, its children before it, and waits for it.
func (s *server) end() {
	for _, pid := range s.children() {
		if p, err := os.FindProcess(pid); err == nil {
			if err := p.Signal(os.Interrupt); err != nil && err != os.ErrProcessDone {
				s.t.Error(err)
			}
		}
	}
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil && err != os.ErrProcessDone {
		s.t.Error(err)
	}
	stuck := time.AfterFunc(10*time.Second, func() {
		s.t.Errorf("%s does not end", s.cmd.Path)
		if err := s.cmd.Process.Kill(); err != nil {
			s.t.Error(err)
		}
	})
	defer stuck.Stop()
	if err := s.cmd.Wait(); err != nil && s.cmd.ProcessState == nil {
		s.t.Error(err)
	}
	if s.t.Failed() {
		s.t.Logf("%s: %v\n%s", s.cmd.Path, s.cmd.ProcessState, s.out.Bytes())
	}
}

// alive reports whether the program runs; it does not wait for it, because a
// tracee's stops are news for whoever waits.
func (s *server) alive() bool { return running(s.pid()) }

func running(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(text), ") Z ") && !strings.Contains(string(text), ") X ")
}

// children returns the program's child processes.
func (s *server) children() (pids []int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", s.pid()))
	if err != nil {
		return nil // it ended
	}
	for _, field := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			s.t.Error(err)
			continue
		}
		pids = append(pids, pid)
	}
	return pids
}

// workers is how many worker processes nginx has.
const workers = 2

const nginxConf = `
daemon off;
user root root;
worker_processes %[1]d;
pid %[2]s/nginx.pid;
error_log %[2]s/error.log notice;
events { worker_connections 256; }
http {
	access_log off;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	default_type text/plain;
	gzip on;
	gzip_min_length 1;
	gzip_types text/plain;
	server {
		listen 127.0.0.1:%[3]d;
		listen 127.0.0.1:%[4]d ssl;
		ssl_certificate %[2]s/cert.pem;
		ssl_certificate_key %[2]s/key.pem;
		location ~ ^/page/([0-9]+)$ { alias %[2]s/page$1; }
	}
}
`

const haproxyConf = `
global
	nbthread 2
defaults
	mode http
	timeout client 60s
	timeout connect 60s
	timeout server 60s
frontend tls
	bind 127.0.0.1:%[2]d ssl crt %[1]s/both.pem
`

// servers are the two programs and where they listen.
type servers struct {
	t              *testing.T
	dir            string
	nginx, haproxy *server
	plain          string // nginx without TLS
	tls, other     string // nginx and haproxy with TLS
	roots          *x509.CertPool
}

func startServers(t *testing.T, libraries string) *servers {
	t.Helper()
	dir := t.TempDir()
	s := &servers{t: t, dir: dir, roots: x509.NewCertPool()}
	cert, key := certificate(t)
	if !s.roots.AppendCertsFromPEM([]byte(cert)) {
		t.Fatal("the certificate cannot be read")
	}
	write(t, dir, "cert.pem", cert)
	write(t, dir, "key.pem", key)
	write(t, dir, "both.pem", cert+key)
	ports := freePorts(t, 3)
	other := fmt.Sprintf(haproxyConf, dir, ports[2])
	for i, page := range pages {
		path := write(t, dir, "page"+strconv.Itoa(i), page)
		if i < haproxyPages {
			other += fmt.Sprintf("\thttp-request return status 200 content-type text/plain file %s if { path_reg ^/page/%d$ }\n", path, i)
		}
	}
	conf := write(t, dir, "nginx.conf", fmt.Sprintf(nginxConf, workers, dir, ports[0], ports[1]))
	s.nginx = start(t, libraries, ports[0], "nginx", "-p", dir, "-e", dir+"/error.log", "-c", conf)
	s.haproxy = start(t, libraries, ports[2], "haproxy", "-db", "-f", write(t, dir, "haproxy.cfg", other))
	s.plain = fmt.Sprintf("http://127.0.0.1:%d/page/", ports[0])
	s.tls = fmt.Sprintf("https://127.0.0.1:%d/page/", ports[1])
	s.other = fmt.Sprintf("https://127.0.0.1:%d/page/", ports[2])
	wait(t, "nginx's workers", func() bool { return len(s.nginx.children()) == workers })
	return s
}

// processes returns the processes that a patch must reach.
func (s *servers) processes() []int {
	return append(s.nginx.children(), s.nginx.pid(), s.haproxy.pid())
}

// reload makes nginx start new workers and end the old ones, and waits for the
// new ones.
func (s *servers) reload() {
	s.t.Helper()
	old := s.nginx.children()
	// What nginx -s reload does.
	if err := s.nginx.cmd.Process.Signal(sighup); err != nil {
		s.t.Fatal(err)
	}
	wait(s.t, "nginx's new workers and the old ones' end", func() bool {
		now := s.nginx.children()
		return len(now) == workers && !slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(old, pid) })
	})
}

// crashes returns what nginx says about workers that ended by themselves.
func (s *servers) crashes() (lines []string) {
	text, err := os.ReadFile(s.dir + "/error.log")
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "exited on signal") || strings.Contains(line, "[alert]") || strings.Contains(line, "[crit]") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}
