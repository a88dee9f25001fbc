/* Sessions: from open to close. */
#include <stdlib.h>
#include <string.h>

#include "session.h"

struct echobeat_session *echobeat_open(const char *secret)
{
	struct echobeat_session *s = calloc(1, sizeof *s);
	size_t n;

	if (s == NULL)
		return NULL;
	n = strlen(secret);
	if (n > SECRET_SIZE - 1)
		n = SECRET_SIZE - 1;
	memcpy(s->arena.secret, secret, n);
	return s;
}

void echobeat_close(struct echobeat_session *s)
{
	if (s != NULL)
		memset(s->arena.secret, 0, SECRET_SIZE);
	free(s);
}

const char *echobeat_version(void)
{
	return "1.0";
}
