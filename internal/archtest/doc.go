// Package archtest holds the shape of the project by tests: which package may
// import which, what the agent may link, that every package says what it is
// for, and that files stay small. It has no code besides its tests, and the
// rules are tables, so that changing the shape is a visible change.
package archtest
