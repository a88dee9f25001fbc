/* echobeatd: a small network service over libechobeat, part of Livemend's
 * demonstration. One master, forked workers, each with several threads. */
#ifndef ECHOBEATD_H
#define ECHOBEATD_H

#define WORKERS 2
#define THREADS 8 /* per worker, its first thread included */

/* Serves connections of listener until the process is ended. Returns only when
 * it cannot work, after saying why. */
void serve(int listener, const char *secret);

#endif
