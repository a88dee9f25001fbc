// Package agent is the folder of the agent's packages, one per duty, and holds
// the tests of the whole agent against a platform's end.
//
// network: enrolment, link; reading what others wrote: inventory, scanner;
// deciding and changing: orders, policy, state, userspace; telling: localfiles.
// The duties stay apart so that each can become a process with just the rights
// it needs. This package itself must stay empty: nothing belongs to all of them.
package agent
