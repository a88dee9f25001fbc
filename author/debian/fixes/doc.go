// Package fixes holds real security fixes of Debian 12 that the author tools are
// judged by: each is built from the distribution's own sources against the stock
// library and applied to the distribution's Python, which has the library loaded,
// or must be refused for the right reason. It has tests only; docs/fixes.md shows
// the list.
package fixes
