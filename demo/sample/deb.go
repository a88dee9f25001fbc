package sample

import (
	"os"
	"path/filepath"
)

// packages packs library and service as the distribution would and returns the
// two files in the order of installation.
func (b *builder) packages(built *Built) []string {
	library, daemon := filepath.Join(b.dir, "deb-library"), filepath.Join(b.dir, "deb-daemon")
	b.copy(built.Library, filepath.Join(library, LibraryPath), 0o644)
	b.file(filepath.Join(library, "DEBIAN/control"), control(LibraryPackage, "", "library of the demonstration's sample service"), 0o644)
	b.copy(built.Daemon, filepath.Join(daemon, DaemonPath), 0o755)
	b.file(filepath.Join(daemon, "DEBIAN/control"), control(DaemonPackage, LibraryPackage+" (>= 1.0)", "sample service of the demonstration"), 0o644)
	return []string{b.pack(library, LibraryPackage), b.pack(daemon, DaemonPackage)}
}

func (b *builder) pack(root, name string) string {
	file := filepath.Join(b.dir, name+"_"+Version+"_amd64.deb")
	b.run("", "dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", root, file)
	return file
}

func (b *builder) copy(from, to string, mode os.FileMode) {
	if b.err != nil {
		return
	}
	content, err := os.ReadFile(from)
	b.keep(err)
	b.file(to, content, mode)
}

func control(name, depends, what string) []byte {
	text := "Package: " + name + "\nSource: echobeat\nVersion: " + Version +
		"\nArchitecture: amd64\nMaintainer: Livemend demonstration <demo@livemend.invalid>\nSection: misc\nPriority: optional\n"
	if depends != "" {
		text += "Depends: " + depends + "\n"
	}
	return []byte(text + "Description: " + what + "\n Holds a planted bug, " + Vulnerability + ", on purpose. Never install it on a real machine.\n")
}
