// Package load proves that live patches go on and off under a program's feet:
// stock nginx and haproxy serve constant requests while hot functions of their
// libraries are redirected, replaced and put back again and again. No request
// may fail. It consists of tests only, and no program links it; it must not
// touch a process that it did not start.
package load
