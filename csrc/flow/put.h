/* Writing text: each function writes at 'at', and the next goes where it returns. */
#ifndef NLCT_PUT_H
#define NLCT_PUT_H

#include "flow.h"

#define WORD(at_, word_) put_bytes(at_, word_, sizeof(word_) - 1)

/* A label, a number and a space. */
#define NUMBER(at_, label_, number_) put_char(put_number(WORD(at_, label_), number_), ' ')

static inline char *put_bytes(char *at, const char *bytes, size_t size)
{
    memcpy(at, bytes, size);
    return at + size;
}

static inline char *put_text(char *at, const char *text)
{
    return put_bytes(at, text, strlen(text));
}

static inline char *put_char(char *at, char c)
{
    *at = c;
    return at + 1;
}

static inline char *put_number(char *at, uint64_t number)
{
    uint64_t rest = number;
    char *end = at + 1;
    char *digit;

    while (rest >= 10) {
        rest /= 10;
        end++;
    }
    for (digit = end; digit > at; number /= 10)
        *--digit = (char)('0' + number % 10);
    return end;
}

#endif
