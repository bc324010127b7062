/* Every block format, as groups of 32 elements. The layouts are told in formats/ggml.py, the reference for all this.
 *
 * A format F gives two functions. F_open(p, n, c) reads the scales of a chunk of n groups that starts at p: sixteen
 * blocks of 32 elements at most, or one super-block of 256. F_group(p, g, c, w0, w1) decodes group g of the chunk to
 * its first and last sixteen elements, rounded as ggml rounds.
 */
#ifndef BESTIARY_GROUPS_H
#define BESTIARY_GROUPS_H

#include "simd.h"

typedef struct {
    float s[16], o[16]; /* scale and offset of each group, or of each half of a group where there are so many */
} chunk;

INLINE uint32_t bits32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Blocks of 32. */

INLINE void q4_0_open(const uint8_t *p, int n, chunk *c) { halves(p, 18, n, c->s, NULL); }
INLINE void q4_0_group(const uint8_t *p, int g, const chunk *c, v16 *w0, v16 *w1) {
    b16 raw = b_load(p + 18 * g + 2);
    nib t = nib_values(c->s[g], CENTRED);
    *w0 = v_low(raw, t), *w1 = v_high(raw, t);
}

INLINE void iq4_nl_open(const uint8_t *p, int n, chunk *c) { halves(p, 18, n, c->s, NULL); }
INLINE void iq4_nl_group(const uint8_t *p, int g, const chunk *c, v16 *w0, v16 *w1) {
    b16 raw = b_load(p + 18 * g + 2);
    nib t = nib_values(c->s[g], IQ4);
    *w0 = v_low(raw, t), *w1 = v_high(raw, t);
}

INLINE void q4_1_open(const uint8_t *p, int n, chunk *c) { halves(p, 20, n, c->s, c->o); }
INLINE void q4_1_group(const uint8_t *p, int g, const chunk *c, v16 *w0, v16 *w1) {
    b16 raw = b_load(p + 20 * g + 4);
    nib t = nib_affine(c->s[g], c->o[g]);
    *w0 = v_low(raw, t), *w1 = v_high(raw, t);
}

INLINE void q5_0_open(const uint8_t *p, int n, chunk *c) { halves(p, 22, n, c->s, NULL); }
INLINE void q5_0_group(const uint8_t *p, int g, const chunk *c, v16 *w0, v16 *w1) {
    b16 raw = b_load(p + 22 * g + 6);
    uint32_t fifth = bits32(p + 22 * g + 2);
    *w0 = v_scaled(((raw & 0x0F) | b_spread(fifth & 0xFFFF, 16)) - 16, c->s[g]);
    *w1 = v_scaled((raw >> 4 | b_spread(fifth >> 16, 16)) - 16, c->s[g]);
}

INLINE void q5_1_open(const uint8_t *p, int n, chunk *c) { halves(p, 24, n, c->s, c->o); }
INLINE void q5_1_group(const uint8_t *p, int g, const chunk *c, v16 *w0, v16 *w1) {
    b16 raw = b_load(p + 24 * g + 8);
    uint32_t fifth = bits32(p + 24 * g + 4);
    *w0 = v_affine((raw & 0x0F) | b_spread(fifth & 0xFFFF, 16), c->s[g], c->o[g]);
    *w1 = v_affine(raw >> 4 | b_spread(fifth >> 16, 16), c->s[g], c->o[g]);
}

INLINE void q8_0_open(const uint8_t *p, int n, chunk *c) { halves(p, 34, n, c->s, NULL); }
INLINE void q8_0_group(const uint8_t *p, int g, const chunk *c, v16 *w0, v16 *w1) {
    *w0 = v_scaled(b_load(p + 34 * g + 2), c->s[g]);
    *w1 = v_scaled(b_load(p + 34 * g + 18), c->s[g]);
}

/* Super-blocks of 256: eight groups. The chunk is one super-block, so n is always 8. */

INLINE void q2_k_open(const uint8_t *p, int n, chunk *c) {
    (void)n;
    b16 both = b_load(p);
    v_store(c->s, v_scaled(both & 0x0F, half(p + 80)));
    v_store(c->o, v_scaled(both >> 4, -half(p + 82)));
}
INLINE void q2_k_group(const uint8_t *p, int g, const chunk *c, v16 *w0, v16 *w1) {
    b32 q = b_moved(p + 16 + 32 * (g / 4), 2 * (g % 4), 0) & 3;
    *w0 = v_affine(b_first(&q), c->s[2 * g], c->o[2 * g]);
    *w1 = v_affine(b_last(&q), c->s[2 * g + 1], c->o[2 * g + 1]);
}

/* Sixteen scales of six bits: the low four are halves of bytes 0 to 7, the high two are in bytes 8 to 11. */
INLINE void q3_k_open(const uint8_t *p, int n, chunk *c) {
    (void)n;
    uint32_t a = bits32(p + 96), b = bits32(p + 100), high = bits32(p + 104);
    uint32_t six[4] = {
        (a & 0x0F0F0F0F) | (high << 4 & 0x30303030),
        (b & 0x0F0F0F0F) | (high << 2 & 0x30303030),
        (a >> 4 & 0x0F0F0F0F) | (high & 0x30303030),
        (b >> 4 & 0x0F0F0F0F) | (high >> 2 & 0x30303030),
    };
    v_store(c->s, v_scaled(b_load((const uint8_t *)six) - 32, half(p + 108)));
}
INLINE void q3_k_group(const uint8_t *p, int g, const chunk *c, v16 *w0, v16 *w1) {
    b32 low = b_moved(p + 32 + 32 * (g / 4), 2 * (g % 4), 0) & 3;
    b32 q = (low | (b_moved(p, g, 2) & 4)) - 4;
    *w0 = v_scaled(b_first(&q), c->s[2 * g]);
    *w1 = v_scaled(b_last(&q), c->s[2 * g + 1]);
}

/* Q4_K's and Q5_K's scales: eight of six bits, and eight offsets of six bits, in the twelve bytes after d and dmin.
 * The scales go to s[0..7], the offsets, with their minus, to s[8..15]. */
INLINE void six_bits(const uint8_t *p, chunk *c) {
    uint32_t a = bits32(p + 4), b = bits32(p + 8), high = bits32(p + 12);
    uint32_t six[4] = {
        a & 0x3F3F3F3F,
        (high & 0x0F0F0F0F) | (a >> 2 & 0x30303030),
        b & 0x3F3F3F3F,
        (high >> 4 & 0x0F0F0F0F) | (b >> 2 & 0x30303030),
    };
    v_store(c->s, v_mul(v_bytes(b_load((const uint8_t *)six)), v_both(half(p), -half(p + 2))));
}

INLINE void q4_k_open(const uint8_t *p, int n, chunk *c) {
    (void)n;
    six_bits(p, c);
}
INLINE void q4_k_group(const uint8_t *p, int g, const chunk *c, v16 *w0, v16 *w1) {
    b16 first = b_load(p + 16 + 32 * (g / 2)), second = b_load(p + 32 + 32 * (g / 2));
    nib t = nib_affine(c->s[g], c->s[8 + g]);
    *w0 = g % 2 ? v_high(first, t) : v_low(first, t);
    *w1 = g % 2 ? v_high(second, t) : v_low(second, t);
}

INLINE void q5_k_open(const uint8_t *p, int n, chunk *c) {
    (void)n;
    six_bits(p, c);
}
INLINE void q5_k_group(const uint8_t *p, int g, const chunk *c, v16 *w0, v16 *w1) {
    b32 low = b_moved(p + 48 + 32 * (g / 2), 4 * (g % 2), 0) & 0x0F;
    b32 q = low | (b_moved(p + 16, g, 4) & 0x10);
    *w0 = v_affine(b_first(&q), c->s[g], c->s[8 + g]);
    *w1 = v_affine(b_last(&q), c->s[g], c->s[8 + g]);
}

INLINE void q6_k_open(const uint8_t *p, int n, chunk *c) {
    (void)n;
    v_store(c->s, v_scaled(b_load(p + 192), half(p + 208)));
}
INLINE void q6_k_group(const uint8_t *p, int g, const chunk *c, v16 *w0, v16 *w1) {
    const int part = g / 4, quarter = g % 4;
    b32 low = b_moved(p + 64 * part + 32 * (quarter % 2), 4 * (quarter / 2), 0) & 0x0F;
    b32 q = (low | (b_moved(p + 128 + 32 * part, 2 * quarter, 4) & 0x30)) - 32;
    *w0 = v_scaled(b_first(&q), c->s[2 * g]);
    *w1 = v_scaled(b_last(&q), c->s[2 * g + 1]);
}

INLINE void iq4_xs_open(const uint8_t *p, int n, chunk *c) {
    (void)n;
    float d = half(p);
    uint32_t high = bits32(p) >> 16, low = bits32(p + 4);
    for (int i = 0; i < 8; i++)
        c->s[i] = d * (float)((int)((low >> 4 * i & 0x0F) | (high >> 2 * i & 3) << 4) - 32);
}
INLINE void iq4_xs_group(const uint8_t *p, int g, const chunk *c, v16 *w0, v16 *w1) {
    b16 raw = b_load(p + 8 + 16 * g);
    nib t = nib_values(c->s[g], IQ4);
    *w0 = v_low(raw, t), *w1 = v_high(raw, t);
}

#endif
