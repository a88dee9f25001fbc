package inventory

import (
	"bufio"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"livemend.dev/livemend/wire"
)

// Limits on what is read of one process and in one round.
const (
	maxMappings = 1 << 18 // lines of one maps file
	maxLine     = 16 << 10
	maxKnown    = 200_000 // files whose build-id is remembered
)

// mapped names a file as /proc/PID/maps does.
type mapped struct{ device, inode string }

// libraries returns what processes have mapped as code, by build-id and path.
// A process that ends meanwhile is left out.
func (c *Collector) libraries(ctx context.Context) ([]wire.Library, error) {
	proc, err := os.Open(filepath.Join(c.root, "proc"))
	if err != nil {
		return nil, err
	}
	names, err := proc.Readdirnames(-1)
	if err = errors.Join(err, proc.Close()); err != nil {
		return nil, err
	}
	r := round{collector: c, ids: map[mapped]string{}, used: map[fileVersion]string{}, index: map[wire.Library]int{}}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if _, err := strconv.ParseUint(name, 10, 31); err == nil {
			r.process(name)
		}
	}
	c.known = r.used // what nobody maps any more is forgotten
	return r.found, nil
}

// round is one look at all processes.
type round struct {
	collector *Collector
	ids       map[mapped]string      // build-ids in this round, "" for files without one
	used      map[fileVersion]string // build-ids by version of the file
	index     map[wire.Library]int   // position in found; key without Processes
	found     []wire.Library
}

// process adds what one process maps. Errors mean that it ended, or that it is
// a kernel thread, which maps nothing.
func (r *round) process(pid string) {
	dir := filepath.Join(r.collector.root, "proc", pid)
	f, err := os.Open(filepath.Join(dir, "maps"))
	if err != nil {
		return
	}
	defer f.Close() // only read
	seen := map[wire.Library]bool{}
	lines := bufio.NewReaderSize(f, maxLine)
	for range maxMappings {
		line, err := lines.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
		m, ok := parseMapping(string(line))
		if !ok {
			continue
		}
		id, known := r.ids[m.file]
		if !known {
			id, known = r.buildID(dir, m)
			if !known {
				continue // this mapping went away; the file may be mapped elsewhere
			}
			r.ids[m.file] = id
		}
		if id == "" {
			continue
		}
		l := wire.Library{BuildID: id, Path: m.path, Deleted: m.deleted}
		if seen[l] {
			continue
		}
		seen[l] = true
		r.add(l)
	}
}

func (r *round) add(l wire.Library) {
	i, ok := r.index[l]
	if !ok {
		if len(r.found) >= wire.MaxLibs {
			return
		}
		i = len(r.found)
		r.index[l] = i
		r.found = append(r.found, l)
	}
	r.found[i].Processes++
}

// buildID reads the build-id of a mapped file through map_files, which leads to
// the file itself whatever became of its name and whichever mounts the process
// has. known is false when nothing could be learnt.
func (r *round) buildID(dir string, m mapping) (id string, known bool) {
	a := r.collector.files.read(m.file.device, filepath.Join(dir, "map_files", m.span), func(v fileVersion) (string, bool) {
		id, ok := r.collector.known[v]
		return id, ok
	})
	if a.known && len(r.used) < maxKnown {
		r.used[a.version] = a.id
	}
	return a.id, a.known
}

// mapping is one line of /proc/PID/maps that maps a file as code.
type mapping struct {
	span    string // START-END
	file    mapped
	path    string
	deleted bool
}

// parseMapping reads "START-END r-xp OFFSET DEVICE INODE   PATH"; ok is false
// for what maps no file as code.
func parseMapping(line string) (m mapping, ok bool) {
	rest := strings.TrimSuffix(line, "\n")
	var field [5]string
	for i := range field {
		rest = strings.TrimLeft(rest, " ")
		field[i], rest, _ = strings.Cut(rest, " ")
	}
	path := strings.TrimLeft(rest, " ")
	if len(field[1]) != 4 || field[1][2] != 'x' || field[4] == "" || field[4] == "0" || !strings.HasPrefix(path, "/") {
		return mapping{}, false
	}
	m = mapping{span: field[0], file: mapped{field[3], field[4]}}
	path, m.deleted = strings.CutSuffix(path, " (deleted)")
	m.path = clean(path, wire.MaxMessage)
	return m, true
}
