// Compiled so that its function starts with endbr64.
extern volatile int seen;
int landing(int x) { seen = x; return x + 50; }
