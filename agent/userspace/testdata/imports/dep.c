// The library that the patched one is linked with.
int state = 5;
int add_old(int x) { return x + 1000; }
int add_new(int x) { return x + 2000; }
__asm__(".symver add_old,add@V_1");
__asm__(".symver add_new,add@@V_2");
static int fast(int x) { return x + 70; }
static int slow(int x) { return x + 80; }
static void *choose(void) { return fast; }
int pick(int) __attribute__((ifunc("choose")));
__attribute__((used)) static void *keep = slow;
