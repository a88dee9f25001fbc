package guest

// Package is one package of the distribution, pinned.
type Package struct {
	Name    string
	Version string
	SHA256  string // of the .deb, lower-case hexadecimal
}

// Kernel is one of the distribution's kernels.
type Kernel struct {
	Release string    // as uname -r tells it
	Image   Package   // the kernel and its modules
	Headers []Package // what modules are built with; none where no test builds any
}

// The kernels that tests boot. Debian's releases 47, 48 and 50 of 6.1 follow each
// other; 47 is the last one with CVE-2026-46333.
var (
	Debian61 = Kernel{"6.1.0-47-amd64",
		Package{"linux-image-6.1.0-47-amd64", "6.1.170-3", "e0061f95dbe31f5646e5a29ba9a62293f6b625a70e81fc2b04344d8ab7589c34"},
		[]Package{
			{"linux-headers-6.1.0-47-amd64", "6.1.170-3", "2a40c463e108b1ea3abf2e16e38eb9e27b237693b974b862adde73873c7d85c1"},
			{"linux-headers-6.1.0-47-common", "6.1.170-3", "845e73df261d3b13eb58310dd073e125791bf0a5feedae627beb16718b866b12"},
			{"linux-kbuild-6.1", "6.1.176-1", "667d2e1e94047031c3bcefa4bb67c2520bbc3cc1cce0aa592e67b108dbbead03"},
		}}
	Debian61Fixed = Kernel{"6.1.0-48-amd64",
		Package{"linux-image-6.1.0-48-amd64", "6.1.172-1", "22007ac243a5de6d53cbc5b43040b1389fa10860c4952a43d2786e09798cf1f8"}, nil}
	Debian61Later = Kernel{"6.1.0-50-amd64",
		Package{"linux-image-6.1.0-50-amd64", "6.1.176-1", "7b5597492a0a65aee61985a492e6bcc3f2cde830072a0e3b3d8c7e1b90279bd3"}, nil}
	Debian612 = Kernel{"6.12.117+deb12-amd64",
		Package{"linux-image-6.12.117+deb12-amd64", "6.12.117-1~deb12u1", "803d36a7cda13355ae8152122470288b2636f19f1cb58162dd9d8b408af9b1b4"},
		[]Package{
			{"linux-headers-6.12.117+deb12-amd64", "6.12.117-1~deb12u1", "8ee4c67f8399bc6f9aa1c5256d9d1b1b7eace76c7acca519e63f1b7df5fc4bd0"},
			{"linux-headers-6.12.117+deb12-common", "6.12.117-1~deb12u1", "0c70107dda266a9d26dc119d80a71589202b17fbf4d4ddf544681c89e2002742"},
			{"linux-kbuild-6.12.117+deb12", "6.12.117-1~deb12u1", "69761d1daf39e43485d278cc7066f77c15edc3b881d6e47afd61cf0da0985677"},
		}}
)

// drivers are the modules that a guest needs, in the order in which they depend
// on each other. Those that a kernel has built in are not in its package.
var drivers = []string{
	"virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_console",
	"failover", "net_failover", "virtio_net",
	"virtio_blk", "crc16", "crc32c_generic", "mbcache", "jbd2", "ext4",
}
