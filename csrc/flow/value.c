/* The values of a flow's fields, as JSON or as words. */
#include "put.h"

#include <arpa/inet.h>

enum { LABELS_COUNT = 128, BITS = 32, TEXT_SIZE = 16, REPLACEMENT = 0xfffd };

/* Most bytes of a value for one of a text or a span: "\ufffd" for what is not UTF-8. */
enum { ESCAPED = 6 };

static char *put_hex_digits(char *at, uint32_t number, int digits)
{
    while (digits--)
        at = put_char(at, "0123456789abcdef"[number >> 4 * digits & 15]);
    return at;
}

static char *put_hex_bytes(char *at, const uint8_t *bytes, size_t size)
{
    for (; size; size--)
        at = put_hex_digits(at, *bytes++, 2);
    return at;
}

/* A copy of fixed size is a few moves; what follows covers the rest. */
static char *put_word(char *at, const struct nlct_word *word)
{
    memcpy(at, word->text, sizeof(word->text));
    return at + word->size;
}

static char *put_quote(char *at, bool json)
{
    return json ? put_char(at, '"') : at;
}

static char *put_comma(char *at, bool json)
{
    return json ? WORD(at, ", ") : put_char(at, ',');
}

/* Text ---------------------------------------------------------------------------------------- */

/* Reads one character of UTF-8. Returns its bytes; what is no character is U+FFFD, once for each
   longest beginning of one. */
static size_t read_utf8(const uint8_t *at, size_t left, uint32_t *code)
{
    const uint8_t lead = at[0];
    const size_t size = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    /* What the second byte may be: no longer form than needed, no surrogate, nothing too high. */
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    size_t i;

    *code = REPLACEMENT;
    if ((lead >= 0x80 && lead < 0xc2) || lead > 0xf4)
        return 1;
    for (i = 1; i < size; i++) {
        if (i == left || at[i] < low || at[i] > high)
            return i;
        low = 0x80;
        high = 0xbf;
    }
    *code = size == 1 ? lead : lead & 0x7fU >> size;
    for (i = 1; i < size; i++)
        *code = *code << 6 | (at[i] & 0x3f);
    return size;
}

static char *put_escape(char *at, uint32_t unit)
{
    return put_hex_digits(WORD(at, "\\u"), unit, 4);
}

static char *put_json_character(char *at, uint32_t code)
{
    static const char short_forms[] = "\"\"\\\\\nn\rr\tt\bb\ff";
    const char *form;

    for (form = short_forms; *form; form += 2)
        if (code == (uint8_t)form[0])
            return put_char(put_char(at, '\\'), form[1]);
    if (code >= ' ' && code <= '~')
        return put_char(at, (char)code);
    if (code <= UINT16_MAX)
        return put_escape(at, code);
    code -= UINT16_MAX + 1;
    return put_escape(put_escape(at, 0xd800 + (code >> 10)), 0xdc00 + (code & 0x3ff));
}

/* Without the null bytes at its end. */
static char *put_string(char *at, const uint8_t *text, size_t size, bool json)
{
    uint32_t code;
    size_t used;

    while (size && !text[size - 1])
        size--;
    at = put_quote(at, json);
    for (; size; size -= used, text += used) {
        used = read_utf8(text, size, &code);
        if (json)
            at = put_json_character(at, code);
        else if (code == REPLACEMENT)
            at = WORD(at, "\xef\xbf\xbd");
        else
            at = put_bytes(at, (const char *)text, used);
    }
    return put_quote(at, json);
}

/* Spans --------------------------------------------------------------------------------------- */

/* An object of hexadecimal payloads by type, which is JSON everywhere. A type that comes twice is
   there twice. */
static char *put_unknown(char *at, const uint8_t *bytes, size_t size, bool json)
{
    struct wire wire = {bytes, size};
    struct attr attr;
    bool first = true;

    at = put_char(at, '{');
    while (wire_attr(&wire, &attr) > 0) {
        at = first ? at : put_comma(at, json);
        at = put_number(put_char(at, '"'), attr.type);
        at = json ? WORD(at, "\": \"") : WORD(at, "\":\"");
        at = put_char(put_hex_bytes(at, attr.data, attr.size), '"');
        first = false;
    }
    return put_char(at, '}');
}

static char *put_span(char *at, const struct nlct_flow *flow, const uint8_t *bytes,
                      const struct field *field, bool json)
{
    struct nlct_span span;

    memcpy(&span, flow_value(flow, field), sizeof(span));
    /* Without bytes there may be none to point to. */
    if (span.size)
        bytes += span.at;
    if (field->bit == NLCT_FLOW_UNKNOWN)
        return put_unknown(at, bytes, span.size, json);
    if (field->bit == NLCT_FLOW_SECCTX)
        return put_string(at, bytes, span.size, json);
    return put_quote(put_hex_bytes(put_quote(at, json), bytes, span.size), json);
}

/* Lists --------------------------------------------------------------------------------------- */

static char *put_bits(char *at, uint32_t status, const struct nlct_word *words, bool json)
{
    uint64_t bits = status;

    if (!json && !bits)
        return put_char(at, '-');
    at = json ? put_char(at, '[') : at;
    while (bits) {
        at = put_word(put_quote(at, json), &words[next_bit(&bits)]);
        at = put_quote(at, json);
        at = bits ? put_comma(at, json) : at;
    }
    return json ? put_char(at, ']') : at;
}

static char *put_labels(char *at, const uint64_t *labels, bool json)
{
    bool first = true;
    unsigned word;

    if (!json && !labels[0] && !labels[1])
        return put_char(at, '-');
    at = json ? put_char(at, '[') : at;
    for (word = 0; word < 2; word++) {
        uint64_t bits = labels[word];

        while (bits) {
            at = first ? at : put_comma(at, json);
            at = put_number(at, 64 * word + next_bit(&bits));
            first = false;
        }
    }
    return json ? put_char(at, ']') : at;
}

/* Any value ----------------------------------------------------------------------------------- */

static char *put_number_or_word(char *at, uint64_t number, size_t size,
                                const struct nlct_word *words, bool json)
{
    if (!words)
        return put_number(at, number);
    if (size > 1)
        return put_bits(at, (uint32_t)number, words, json);
    return put_quote(put_word(put_quote(at, json), &words[number]), json);
}

/* The family of the tuple that a field is in. */
static uint8_t family_of(const struct nlct_flow *flow, const struct field *field)
{
    return *((const uint8_t *)flow + field->present + offsetof(struct nlct_tuple, family));
}

char *value_put(char *at, const struct nlct_flow *flow, const uint8_t *bytes,
                const struct field *field, const struct nlct_word *words, bool json)
{
    const void *value = flow_value(flow, field);

    switch (field->public.kind) {
    case NLCT_ADDRESS:
        at = text_address(put_quote(at, json), value, family_of(flow, field));
        return put_quote(at, json);
    case NLCT_LABELS:
        return put_labels(at, flow->labels, json);
    case NLCT_TEXT:
        return put_string(at, value, field->public.size, json);
    case NLCT_SPAN:
        return put_span(at, flow, bytes, field, json);
    default:
        return put_number_or_word(at, flow_number(flow, field), field->public.size, words, json);
    }
}

size_t value_room(const struct field *field, const struct nlct_word *words)
{
    const size_t word = sizeof("\"\", ") + sizeof(words->text);

    switch (field->public.kind) {
    case NLCT_ADDRESS:
        return sizeof("\"\"") + INET6_ADDRSTRLEN;
    case NLCT_LABELS:
        return sizeof("[]") + LABELS_COUNT * (sizeof("127, ") - 1);
    case NLCT_TEXT:
        return sizeof("\"\"") + ESCAPED * TEXT_SIZE;
    case NLCT_SPAN:
        return sizeof("\"\"");
    default:
        return words && field->public.size > 1 ? sizeof("[]") + BITS * word : word;
    }
}

size_t value_spans(const struct nlct_flow *flow)
{
    return ESCAPED * ((size_t)flow->helper_info.size + flow->secctx.size + flow->unknown.size);
}
