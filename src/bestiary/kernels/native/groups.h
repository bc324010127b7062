/* Every block format, as groups of 32 elements. The layouts are told in formats/ggml.py, the reference for all this.
 *
 * A format F gives two functions. F_open(p, n, s, o) reads the scales s and the offsets o of n blocks: one of each a
 * block of 32, sixteen a super-block of 256 (used as its F_group pleases). F_group(p, g, s, o, w0, w1) decodes group g
 * of the block at p, whose scales are at s and o, to its first and last sixteen elements, rounded as ggml rounds.
 */
#ifndef BESTIARY_GROUPS_H
#define BESTIARY_GROUPS_H

#include "simd.h"

INLINE uint32_t bits32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Blocks of 32. */

INLINE void q4_0_open(const uint8_t *p, size_t n, float *s, float *o) { halves(p, 18, n, s, NULL); }
INLINE void q4_0_group(const uint8_t *p, size_t g, const float *s, const float *o, v16 *w0, v16 *w1) {
    b16 raw = b_load(p + 2);
    nib t = nib_values(*s, CENTRED);
    *w0 = v_low(raw, t), *w1 = v_high(raw, t);
}

INLINE void iq4_nl_open(const uint8_t *p, size_t n, float *s, float *o) { halves(p, 18, n, s, NULL); }
INLINE void iq4_nl_group(const uint8_t *p, size_t g, const float *s, const float *o, v16 *w0, v16 *w1) {
    b16 raw = b_load(p + 2);
    nib t = nib_values(*s, IQ4);
    *w0 = v_low(raw, t), *w1 = v_high(raw, t);
}

INLINE void q4_1_open(const uint8_t *p, size_t n, float *s, float *o) { halves(p, 20, n, s, o); }
INLINE void q4_1_group(const uint8_t *p, size_t g, const float *s, const float *o, v16 *w0, v16 *w1) {
    b16 raw = b_load(p + 4);
    nib t = nib_affine(*s, *o);
    *w0 = v_low(raw, t), *w1 = v_high(raw, t);
}

INLINE void q5_0_open(const uint8_t *p, size_t n, float *s, float *o) { halves(p, 22, n, s, NULL); }
INLINE void q5_0_group(const uint8_t *p, size_t g, const float *s, const float *o, v16 *w0, v16 *w1) {
    b16 raw = b_load(p + 6);
    uint32_t fifth = bits32(p + 2);
    *w0 = v_scaled(((raw & 0x0F) | b_spread(fifth & 0xFFFF, 16)) - 16, *s);
    *w1 = v_scaled((raw >> 4 | b_spread(fifth >> 16, 16)) - 16, *s);
}

INLINE void q5_1_open(const uint8_t *p, size_t n, float *s, float *o) { halves(p, 24, n, s, o); }
INLINE void q5_1_group(const uint8_t *p, size_t g, const float *s, const float *o, v16 *w0, v16 *w1) {
    b16 raw = b_load(p + 8);
    uint32_t fifth = bits32(p + 4);
    *w0 = v_affine((raw & 0x0F) | b_spread(fifth & 0xFFFF, 16), *s, *o);
    *w1 = v_affine(raw >> 4 | b_spread(fifth >> 16, 16), *s, *o);
}

INLINE void q8_0_open(const uint8_t *p, size_t n, float *s, float *o) { halves(p, 34, n, s, NULL); }
INLINE void q8_0_group(const uint8_t *p, size_t g, const float *s, const float *o, v16 *w0, v16 *w1) {
    *w0 = v_scaled(b_load(p + 2), *s);
    *w1 = v_scaled(b_load(p + 18), *s);
}

/* Super-blocks of 256: eight groups. */

INLINE void q2_k_open(const uint8_t *p, size_t n, float *s, float *o) {
    for (; n; n--, p += 84, s += 16, o += 16) {
        b16 both = b_load(p);
        v_store(s, v_scaled(both & 0x0F, half(p + 80)));
        v_store(o, v_scaled(both >> 4, -half(p + 82)));
    }
}
INLINE void q2_k_group(const uint8_t *p, size_t g, const float *s, const float *o, v16 *w0, v16 *w1) {
    b32 q = b_moved(p + 16 + 32 * (g / 4), 2 * (g % 4), 0) & 3;
    *w0 = v_affine(b_first(&q), s[2 * g], o[2 * g]);
    *w1 = v_affine(b_last(&q), s[2 * g + 1], o[2 * g + 1]);
}

/* Sixteen scales of six bits: the low four are halves of bytes 0 to 7, the high two are in bytes 8 to 11. */
INLINE void q3_k_open(const uint8_t *p, size_t n, float *s, float *o) {
    (void)o;
    for (; n; n--, p += 110, s += 16) {
        uint32_t a = bits32(p + 96), b = bits32(p + 100), high = bits32(p + 104);
        uint32_t six[4] = {
            (a & 0x0F0F0F0F) | (high << 4 & 0x30303030),
            (b & 0x0F0F0F0F) | (high << 2 & 0x30303030),
            (a >> 4 & 0x0F0F0F0F) | (high & 0x30303030),
            (b >> 4 & 0x0F0F0F0F) | (high >> 2 & 0x30303030),
        };
        v_store(s, v_scaled(b_load((const uint8_t *)six) - 32, half(p + 108)));
    }
}
INLINE void q3_k_group(const uint8_t *p, size_t g, const float *s, const float *o, v16 *w0, v16 *w1) {
    b32 low = b_moved(p + 32 + 32 * (g / 4), 2 * (g % 4), 0) & 3;
    b32 q = (low | (b_moved(p, g, 2) & 4)) - 4;
    *w0 = v_scaled(b_first(&q), s[2 * g]);
    *w1 = v_scaled(b_last(&q), s[2 * g + 1]);
}

/* Q4_K's and Q5_K's scales: eight of six bits, and eight offsets of six bits, in the twelve bytes after d and dmin.
 * The scales go to s[0..7], the offsets, with their minus, to s[8..15]. */
INLINE void six_bits(const uint8_t *p, float *s) {
    uint32_t a = bits32(p + 4), b = bits32(p + 8), high = bits32(p + 12);
    uint32_t six[4] = {
        a & 0x3F3F3F3F,
        (high & 0x0F0F0F0F) | (a >> 2 & 0x30303030),
        b & 0x3F3F3F3F,
        (high >> 4 & 0x0F0F0F0F) | (b >> 2 & 0x30303030),
    };
    v_store(s, v_mul(v_bytes(b_load((const uint8_t *)six)), v_both(half(p), -half(p + 2))));
}

INLINE void q4_k_open(const uint8_t *p, size_t n, float *s, float *o) {
    (void)o;
    for (; n; n--, p += 144, s += 16) six_bits(p, s);
}
INLINE void q4_k_group(const uint8_t *p, size_t g, const float *s, const float *o, v16 *w0, v16 *w1) {
    b16 first = b_load(p + 16 + 32 * (g / 2)), second = b_load(p + 32 + 32 * (g / 2));
    nib t = nib_affine(s[g], s[8 + g]);
    *w0 = g % 2 ? v_high(first, t) : v_low(first, t);
    *w1 = g % 2 ? v_high(second, t) : v_low(second, t);
}

INLINE void q5_k_open(const uint8_t *p, size_t n, float *s, float *o) {
    (void)o;
    for (; n; n--, p += 176, s += 16) six_bits(p, s);
}
INLINE void q5_k_group(const uint8_t *p, size_t g, const float *s, const float *o, v16 *w0, v16 *w1) {
    b32 low = b_moved(p + 48 + 32 * (g / 2), 4 * (g % 2), 0) & 0x0F;
    b32 q = low | (b_moved(p + 16, g, 4) & 0x10);
    *w0 = v_affine(b_first(&q), s[g], s[8 + g]);
    *w1 = v_affine(b_last(&q), s[g], s[8 + g]);
}

INLINE void q6_k_open(const uint8_t *p, size_t n, float *s, float *o) {
    (void)o;
    for (; n; n--, p += 210, s += 16) v_store(s, v_scaled(b_load(p + 192), half(p + 208)));
}
INLINE void q6_k_group(const uint8_t *p, size_t g, const float *s, const float *o, v16 *w0, v16 *w1) {
    const int part = g / 4, quarter = g % 4;
    b32 low = b_moved(p + 64 * part + 32 * (quarter % 2), 4 * (quarter / 2), 0) & 0x0F;
    b32 q = (low | (b_moved(p + 128 + 32 * part, 2 * quarter, 4) & 0x30)) - 32;
    *w0 = v_scaled(b_first(&q), s[2 * g]);
    *w1 = v_scaled(b_last(&q), s[2 * g + 1]);
}

INLINE void iq4_xs_open(const uint8_t *p, size_t n, float *s, float *o) {
    (void)o;
    for (; n; n--, p += 136, s += 16) {
        uint32_t high = bits32(p) >> 16, low = bits32(p + 4);
        for (int i = 0; i < 8; i++)
            s[i] = half(p) * (float)((int)((low >> 4 * i & 0x0F) | (high >> 2 * i & 3) << 4) - 32);
    }
}
INLINE void iq4_xs_group(const uint8_t *p, size_t g, const float *s, const float *o, v16 *w0, v16 *w1) {
    b16 raw = b_load(p + 8 + 16 * g);
    nib t = nib_values(s[g], IQ4);
    *w0 = v_low(raw, t), *w1 = v_high(raw, t);
}

#endif
