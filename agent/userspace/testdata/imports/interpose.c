// Preloaded: takes the place of the function of that name.
int add(int x) { return x + 5000; }
