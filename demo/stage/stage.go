// Package stage sets the demonstration up from the product's real programs:
// keys, portal, platform, demo servers with the sample service, and a client of
// the platform's REST API. It has no shortcut into any of them.
//
// It decides nothing about what is shown; that is for the program that uses it.
package stage
