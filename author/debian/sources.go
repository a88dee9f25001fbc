package debian

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxSources bounds one file of package sources.
const maxSources = 1 << 20

// inside is where the throw-away root sees the work folder.
const inside = "/livemend"

// aptConfig is read after the root's own configuration, so that its proxies
// and the like hold. Hooks are for machines that people work on.
const aptConfig = `Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "` + inside + `/apt/sources.d";
Dir::State::lists "` + inside + `/apt/lists";
Dir::Cache "` + inside + `/apt/cache";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Install-Recommends "false";
APT::Get::Assume-Yes "true";
APT::Color "false";
Dpkg::Use-Pty "false";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
#clear Acquire::IndexTargets::deb::DEP-11;
`

// privateSources derives package sources with source packages from a root's
// own: file name to content.
func privateSources(root string) (map[string]string, error) {
	var files []string
	for _, pattern := range []string{"sources.list", "sources.list.d/*.list", "sources.list.d/*.sources"} {
		found, err := filepath.Glob(filepath.Join(root, "etc/apt", pattern))
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	out := map[string]string{}
	for _, path := range files {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if info.Size() > maxSources {
			return nil, fmt.Errorf("%s is too large", path)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		derive := withSourceLines
		if filepath.Ext(path) == ".sources" {
			derive = withSourceTypes
		}
		if derived := derive(string(text)); derived != "" {
			out[filepath.Base(path)] = derived
		}
	}
	if len(out) == 0 {
		return nil, errors.New("there are no package sources in " + filepath.Join(root, "etc/apt"))
	}
	return out, nil
}

// withSourceLines adds a deb-src line for every deb line of a file in the
// one-line style. Comments are dropped. It is empty when nothing is left.
func withSourceLines(text string) string {
	var out []string
	add := func(line string) {
		if !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		kind, rest, _ := strings.Cut(strings.Join(strings.Fields(line), " "), " ")
		if rest == "" || (kind != "deb" && kind != "deb-src") {
			continue
		}
		add("deb " + rest)
		add("deb-src " + rest)
	}
	if len(out) == 0 {
		return ""
	}
	return strings.Join(out, "\n") + "\n"
}

// withSourceTypes does the same for a file in the deb822 style. Stanzas that
// are switched off are left out.
func withSourceTypes(text string) string {
	var out strings.Builder
	for _, stanza := range paragraphs(text) {
		if enabled := strings.ToLower(stanza.field("Enabled")); enabled == "no" || enabled == "false" || stanza.field("URIs") == "" {
			continue
		}
		for _, f := range stanza {
			value := f.value
			if strings.EqualFold(f.name, "Types") {
				value = "deb deb-src"
			}
			out.WriteString(f.name + ": " + strings.ReplaceAll(value, "\n", "\n ") + "\n")
		}
		out.WriteString("\n")
	}
	return out.String()
}

// paragraph is one stanza of a control file, in the order of its fields.
type paragraph []field

type field struct{ name, value string }

// field returns a field's value, its lines joined by newlines.
func (p paragraph) field(name string) string {
	for _, f := range p {
		if strings.EqualFold(f.name, name) {
			return f.value
		}
	}
	return ""
}

// paragraphs reads a control file: fields with continuation lines, stanzas
// between empty lines, comments. Lines that are none of these are skipped, as
// are the lines of a signature around it.
func paragraphs(text string) []paragraph {
	var all []paragraph
	var now paragraph
	end := func() {
		if len(now) > 0 {
			all = append(all, now)
		}
		now = nil
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n\t ")
		switch {
		case line == "":
			end()
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if len(now) > 0 {
				now[len(now)-1].value += "\n" + strings.TrimLeft(line, " \t")
			}
		default:
			name, value, found := strings.Cut(line, ":")
			if found && !strings.ContainsAny(name, " \t") {
				now = append(now, field{name, strings.TrimSpace(value)})
			}
		}
	}
	end()
	return all
}
