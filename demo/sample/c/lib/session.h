/* What a session holds in memory. */
#ifndef SESSION_H
#define SESSION_H

#include "echobeat.h"

#define SECRET_SIZE 48

/* The peer's last payload and, right behind it, something that the peer must
 * never see: the layout that makes an out-of-bounds read worth planting. */
struct arena {
	uint8_t payload[ECHOBEAT_MAX_RECORD];
	char secret[SECRET_SIZE];
};

struct echobeat_session {
	struct arena arena;
	uint32_t served;
};

#endif
