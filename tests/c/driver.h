/* What the files of the program `driver` share. */
#ifndef DRIVER_H
#define DRIVER_H

#include "nlct.h"

/* agreement.c: in a namespace without flows, and leaves it so. */
void a_mirror_agrees_with_the_table(const struct nlct_netns *netns, unsigned seed);

#endif
