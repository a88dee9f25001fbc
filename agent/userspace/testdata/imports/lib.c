// The patched library. It needs the other one and uses nothing of it.
#include <stdio.h>
#include <string.h>
volatile int seen;
static __thread int mine;
__thread int ours;
int level = 3; // nothing here uses it
int add(int), pick(int);
extern int state;
__attribute__((noinline, aligned(16))) int work(int x, const char *s) { seen = x; return x + !s + 1; }
__attribute__((noinline, aligned(16))) int count(int x) { mine += x; ours += x; return mine + 100 * ours; }
