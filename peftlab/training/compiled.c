/* What a training step on a CPU does besides the large products: `compiled.py` says what each function is for.

   Matrices are row by row, contiguous, of 4-byte floats, and their widths are multiples of 16. Masks are bytes, 0 or 1. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define WIDTH 16
#else
#define WIDTH 8
#endif
#define GROUP 8 /* rows of a low-rank matrix that are gone through together */
#define TALL 4  /* rows of a tall matrix that are gone through together */
#define BLOCK 1024 /* values under one threshold, as in masks.py */

typedef float lanes __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t words __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define EACH(j, count) _Pragma("GCC unroll 8") for (int j = 0; j < count; j++)

INLINE lanes of(const float *x) { return *(const lanes *)x; }

INLINE void to(float *out, lanes x) { *(lanes *)out = x; }

INLINE lanes all(float x) { return (lanes){0} + x; }

/* x where kept is 1, else 0; compilers make single bytes of this where they are left to it. */
INLINE lanes where(const uint8_t *kept, lanes x) {
#if defined(__AVX512F__)
    __m512i flags = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)kept));
    return (lanes)_mm512_maskz_mov_ps(_mm512_test_epi32_mask(flags, flags), (__m512)x);
#elif defined(__AVX2__)
    __m256i flags = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)kept));
    return (lanes)_mm256_and_si256((__m256i)x, _mm256_sub_epi32(_mm256_setzero_si256(), flags));
#else
    words flags;
    for (int i = 0; i < WIDTH; i++) flags[i] = -(int32_t)kept[i];
    return (lanes)((words)x & flags);
#endif
}

INLINE float sum(lanes x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#else
    float part[WIDTH];
    to(part, x);
    for (int half = WIDTH / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) part[i] += part[i + half];
    return part[0];
#endif
}

INLINE float largest(lanes x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)x);
#else
    float found = x[0];
    for (int i = 1; i < WIDTH; i++) found = x[i] > found ? x[i] : found;
    return found;
#endif
}

/* e^x for x <= 0, within 2 units of the last place; 0 below -87. The rest after whole powers of 2 is a Taylor series. */
INLINE lanes exp_of(lanes x) {
    words vanishes = x < -87.0f;
    lanes scaled = x * 1.44269504f;
    words power = __builtin_convertvector(scaled - 0.5f, words); /* towards 0, so that x <= 0 is rounded */
    power = (words)((~vanishes) & power);
    lanes whole = __builtin_convertvector(power, lanes);
    lanes rest = (x - whole * 0.693359375f) - whole * -2.12194440e-4f; /* ln 2 in two parts */
    lanes series = all(1.0f / 5040);
    series = series * rest + 1.0f / 720;
    series = series * rest + 1.0f / 120;
    series = series * rest + 1.0f / 24;
    series = series * rest + 1.0f / 6;
    series = series * rest + 0.5f;
    series = series * rest + 1.0f;
    series = series * rest + 1.0f;
    return (lanes)((words)(series * (lanes)((power + 127) << 23)) & ~vanishes);
}

void draw(uint64_t *state, int64_t blocks, uint32_t low, uint64_t share, uint8_t *kept) {
    uint64_t a = state[0], b = state[1], c = state[2], count = state[3];
#define NEXT(word) \
    uint64_t word = a + b + count++; \
    a = b ^ (b >> 11); \
    b = c + (c << 3); \
    c = ((c << 24) | (c >> 40)) + word;
    for (int64_t i = 0; i < blocks; i++) {
        NEXT(word)
        kept[i * BLOCK] = (uint8_t)(low + (word < share));
    }
    for (int64_t i = 0; i < blocks; i++) {
        uint8_t *target = kept + i * BLOCK, threshold = target[0], bytes[BLOCK];
        for (int j = 0; j < BLOCK; j += 8) {
            NEXT(word)
            memcpy(bytes + j, &word, 8);
        }
        for (int j = 0; j < BLOCK; j++) target[j] = bytes[j] >= threshold;
    }
    state[0] = a, state[1] = b, state[2] = c, state[3] = count;
}

void masked(const float *x, const uint8_t *kept, float scale, float *out, int64_t size) {
    int64_t i = 0;
    for (; i + WIDTH <= size; i += WIDTH) to(out + i, where(kept + i, of(x + i)) * scale);
    for (; i < size; i++) out[i] = kept[i] ? x[i] * scale : 0.0f;
}

/* The low-rank products, for `group` rows of the low-rank matrix at a time. */

/* first[j * stride] = sum over k of one[k] across[j, k], and `second` of `two`; where a mask is 0 their values count as 0 */
INLINE void dots(const float *one, const float *two, const uint8_t *one_kept, const uint8_t *two_kept,
                 const float *across, int64_t width, const int group, float *first, float *second, int64_t stride) {
    lanes sums[2][GROUP] = {{{0}}};
    for (int64_t k = 0; k < width; k += WIDTH) {
        lanes upper = of(one + k), lower = of(two + k);
        if (one_kept) upper = where(one_kept + k, upper), lower = where(two_kept + k, lower);
        EACH(j, group) {
            lanes value = of(across + j * width + k);
            sums[0][j] += value * upper;
            sums[1][j] += value * lower;
        }
    }
    EACH(j, group) {
        first[j * stride] = sum(sums[0][j]);
        second[j * stride] = sum(sums[1][j]);
    }
}

INLINE void narrow_group(const float *x, const uint8_t *kept, const float *a, float *out, int64_t all_rows, int64_t rows,
                         int64_t width, const int group) {
    for (int64_t row = 0; row < rows; row += 2) {
        int64_t next = row + 1 < rows ? row + 1 : row; /* an odd last row is taken twice */
        dots(x + row * width, x + next * width, kept ? kept + row * width : 0, kept ? kept + next * width : 0, a, width,
             group, out + row, out + next, all_rows);
    }
}

INLINE void widen_group(const float *c, const float *a, const float *bias, float *out, int64_t all_rows, int64_t rows,
                        int64_t width, const int group, const int add) {
    for (int64_t row = 0; row < rows; row += 2) {
        int64_t next = row + 1 < rows ? 1 : 0;
        lanes one[GROUP], two[GROUP];
        EACH(j, group) {
            one[j] = all(c[j * all_rows + row]);
            two[j] = all(c[j * all_rows + row + next]);
        }
        for (int64_t k = 0; k < width; k += WIDTH) {
            int64_t at = row * width + k, below = at + next * width;
            lanes first = {0}, second = {0};
            EACH(j, group) {
                lanes across = of(a + j * width + k);
                first += across * one[j];
                second += across * two[j];
            }
            if (bias) first += of(bias + k), second += of(bias + k);
            if (add) first += of(out + at), second += of(out + below);
            to(out + below, second);
            to(out + at, first);
        }
    }
}

/* The gradients of one group, TALL rows at a time, so that what belongs to these is read from memory once. */
INLINE void back_group(const float *outer, const float *wide, const float *inner, const float *x, const uint8_t *kept,
                       const float *a, float *wide_gradient, float *a_gradient, float *x_gradient, int64_t rows,
                       int64_t first, int64_t last, int64_t width, int64_t d_out, const int group, const int add) {
    for (int64_t top = first; top < last; top += TALL) {
        float share[GROUP][TALL], slope[GROUP][TALL] = {{0}};
        int64_t at[TALL], count = last - top < TALL ? last - top : TALL;
        for (int i = 0; i < TALL; i++) {
            at[i] = i < count ? top + i : top;
            for (int j = 0; j < group; j++) share[j][i] = i < count ? inner[j * rows + top + i] : 0.0f;
        }
        for (int i = 0; i < TALL; i += 2)
            if (i < count) {
                dots(outer + at[i] * d_out, outer + at[i + 1] * d_out, 0, 0, wide, d_out, group, slope[0] + i,
                     slope[0] + i + 1, TALL);
                if (i + 1 == count) EACH(j, group) slope[j][i + 1] = 0.0f;
            }
        for (int64_t k = 0; k < d_out; k += WIDTH) {
            lanes value[TALL];
            EACH(i, TALL) value[i] = of(outer + at[i] * d_out + k);
            EACH(j, group) {
                lanes total = of(wide_gradient + j * d_out + k);
                EACH(i, TALL) total += value[i] * share[j][i];
                to(wide_gradient + j * d_out + k, total);
            }
        }
        for (int64_t k = 0; k < width; k += WIDTH) {
            lanes value[TALL], back[TALL] = {{0}};
            EACH(i, TALL) {
                value[i] = of(x + at[i] * width + k);
                if (kept) value[i] = where(kept + at[i] * width + k, value[i]);
            }
            EACH(j, group) {
                lanes total = of(a_gradient + j * width + k), across = of(a + j * width + k);
                EACH(i, TALL) {
                    total += value[i] * slope[j][i];
                    back[i] += across * slope[j][i];
                }
                to(a_gradient + j * width + k, total);
            }
            if (x_gradient) EACH(i, TALL) if (i < count) {
                int64_t place = at[i] * width + k;
                if (kept) back[i] = where(kept + place, back[i]);
                if (add) back[i] += of(x_gradient + place);
                to(x_gradient + place, back[i]);
            }
        }
    }
}

#define BY_GROUP(rank, call) \
    for (int64_t j = 0, left; (left = rank - j) > 0; j += left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1) { \
        if (left >= 8) { const int G = 8; call; } \
        else if (left >= 4) { const int G = 4; call; } \
        else if (left >= 2) { const int G = 2; call; } \
        else { const int G = 1; call; } \
    }

void narrow(const float *x, const uint8_t *kept, const float *a, float *out, int64_t all_rows, int64_t rows,
            int64_t width, int64_t rank) {
    if (kept) BY_GROUP(rank, narrow_group(x, kept, a + j * width, out + j * all_rows, all_rows, rows, width, G))
    else BY_GROUP(rank, narrow_group(x, 0, a + j * width, out + j * all_rows, all_rows, rows, width, G))
}

void widen(const float *c, const float *a, const float *bias, float *out, int64_t all_rows, int64_t rows, int64_t width,
           int64_t rank) {
    BY_GROUP(rank, widen_group(c + j * all_rows, a + j * width, j ? 0 : bias, out, all_rows, rows, width, G, j > 0))
}

void lora_back(const float *outer, const float *wide, const float *inner, const float *x, const uint8_t *kept,
               const float *a, float *wide_gradient, float *a_gradient, float *x_gradient, int64_t rows, int64_t first,
               int64_t last, int64_t width, int64_t d_out, int64_t rank) {
#define OF_GROUP(kept) \
    BY_GROUP(rank, back_group(outer, wide + j * d_out, inner + j * rows, x, kept, a + j * width, \
                              wide_gradient + j * d_out, a_gradient + j * width, x_gradient, rows, first, last, width, \
                              d_out, G, j > 0))
    if (kept) OF_GROUP(kept)
    else OF_GROUP(0)
}

/* Attention, a head of a text at a time, 8 queries or keys together; what it keeps for the backward pass is two numbers a query.

   A `field` is [texts, heads, tokens, width], its last dimension contiguous. */

typedef struct {
    float *at;
    int64_t text, head, token;
} field;

#if defined(__AVX512F__)
#define ROWS 8
#else
#define ROWS 4
#endif

INLINE float *head_of(field x, int64_t text, int64_t head) { return x.at ? x.at + text * x.text + head * x.head : 0; }

/* out[w, s] = x[s, w]; columns from `tokens` to `padded` are 0 */
static void turn(const float *x, int64_t stride, int64_t tokens, int64_t padded, int64_t width, float *out) {
    int64_t s = 0;
#if defined(__AVX512F__)
    int32_t steps[WIDTH];
    for (int i = 0; i < WIDTH; i++) steps[i] = (int32_t)(i * stride);
    __m512i places = _mm512_loadu_si512(steps);
    for (; s + WIDTH <= tokens; s += WIDTH)
        for (int64_t w = 0; w < width; w++)
            to(out + w * padded + s, (lanes)_mm512_i32gather_ps(places, x + s * stride + w, 4));
#endif
    for (; s < tokens; s++)
        for (int64_t w = 0; w < width; w++) out[w * padded + s] = x[s * stride + w];
    for (int64_t w = 0; w < width; w++) memset(out + w * padded + tokens, 0, (padded - tokens) * sizeof(float));
}

INLINE void across_part(const float *const *x, const float *turned, int64_t padded, int64_t width, float *out,
                        const int vectors) {
    lanes sums[ROWS][2] = {{{0}}};
    for (int64_t w = 0; w < width; w++)
        EACH(n, vectors) {
            lanes value = of(turned + w * padded + n * WIDTH);
            EACH(i, ROWS) sums[i][n] += value * x[i][w];
        }
    EACH(i, ROWS) EACH(n, vectors) to(out + i * padded + n * WIDTH, sums[i][n]);
}

/* out[i, s] = sum over w of x[i][w] turned[w, s] */
static void across(const float *const *x, const float *turned, int64_t padded, int64_t width, float *out) {
    int64_t s = 0;
    for (; s + 2 * WIDTH <= padded; s += 2 * WIDTH) across_part(x, turned + s, padded, width, out + s, 2);
    if (s < padded) across_part(x, turned + s, padded, width, out + s, 1);
}

INLINE void mix_part(const float *share, const int64_t *by_row, int64_t by_term, const float *values, int64_t stride,
                     int64_t terms, float *out, int64_t out_stride, int rows, const int vectors) {
    lanes sums[ROWS][2] = {{{0}}};
    for (int64_t t = 0; t < terms; t++) {
        EACH(n, vectors) {
            lanes value = of(values + t * stride + n * WIDTH);
            EACH(i, ROWS) sums[i][n] += value * share[by_row[i] + t * by_term];
        }
    }
    EACH(i, ROWS) if (i < rows) EACH(n, vectors) to(out + i * out_stride + n * WIDTH, sums[i][n]);
}

/* out[i, w] = sum over t of share[i, t] values[t, w], for up to ROWS rows */
static void mix(const float *share, int64_t by_row, int64_t by_term, const float *values, int64_t stride, int64_t terms,
                float *out, int64_t out_stride, int rows, int64_t width) {
    int64_t at[ROWS], w = 0;
    for (int i = 0; i < ROWS; i++) at[i] = (i < rows ? i : 0) * by_row;
    for (; w + 2 * WIDTH <= width; w += 2 * WIDTH)
        mix_part(share, at, by_term, values + w, stride, terms, out + w, out_stride, rows, 2);
    if (w < width) mix_part(share, at, by_term, values + w, stride, terms, out + w, out_stride, rows, 1);
}

/* scale x + bias, and the same below 0 past the last key */
static void add_bias(float *x, float scale, const float *bias, int64_t keys, int64_t padded) {
    for (int64_t s = 0; s < padded; s += WIDTH) to(x + s, of(x + s) * scale);
    if (bias)
        for (int64_t s = 0; s < keys; s++) x[s] += bias[s];
    for (int64_t s = keys; s < padded; s++) x[s] = -INFINITY;
}

INLINE int64_t padded_to_lanes(int64_t tokens) { return (tokens + WIDTH - 1) / WIDTH * WIDTH; }

INLINE int rows_from(int64_t top, int64_t queries, const float *x, int64_t stride, const float **rows) {
    int found = queries - top < ROWS ? (int)(queries - top) : ROWS;
    for (int i = 0; i < ROWS; i++) rows[i] = x + (top + (i < found ? i : 0)) * stride;
    return found;
}

int attend(field q, field k, field v, field bias, const uint8_t *kept, float scale, float kept_scale, field out,
           float *stats, int64_t heads, int64_t queries, int64_t keys, int64_t width, int64_t first, int64_t last) {
    int64_t padded = padded_to_lanes(keys);
    float *turned = malloc((width + ROWS) * padded * sizeof(float) + padded), *part = turned + width * padded;
    if (!turned) return 1;
    uint8_t *flags = (uint8_t *)(part + ROWS * padded);
    memset(flags, 0, padded);
    for (int64_t one = first; one < last; one++) {
        int64_t text = one / heads, head = one % heads;
        const float *from = head_of(q, text, head), *row[ROWS];
        const float *values = head_of(v, text, head);
        turn(head_of(k, text, head), k.token, keys, padded, width, turned);
        for (int64_t top = 0; top < queries; top += ROWS) {
            int rows = rows_from(top, queries, from, q.token, row);
            across(row, turned, padded, width, part);
            for (int i = 0; i < rows; i++) {
                float *x = part + i * padded, *kept_here = stats + 2 * (one * queries + top + i);
                add_bias(x, scale, bias.at ? head_of(bias, text, head) + (top + i) * bias.token : 0, keys, padded);
                lanes most = of(x), total = {0};
                for (int64_t s = WIDTH; s < padded; s += WIDTH) {
                    lanes value = of(x + s);
                    words higher = value > most;
                    most = (lanes)(((words)value & higher) | ((words)most & ~higher));
                }
                float top_score = largest(most);
                for (int64_t s = 0; s < padded; s += WIDTH) {
                    lanes value = exp_of(of(x + s) - top_score);
                    to(x + s, value);
                    total += value;
                }
                float share = 1.0f / sum(total);
                kept_here[0] = top_score, kept_here[1] = share;
                if (kept) memcpy(flags, kept + (one * queries + top + i) * keys, keys);
                for (int64_t s = 0; s < padded; s += WIDTH) {
                    lanes value = of(x + s) * (share * kept_scale);
                    to(x + s, kept ? where(flags + s, value) : value);
                }
            }
            mix(part, padded, 1, values, v.token, keys, head_of(out, text, head) + top * out.token, out.token, rows, width);
        }
    }
    free(turned);
    return 0;
}

int attend_back(field q, field k, field v, field bias, const uint8_t *kept, float scale, float kept_scale,
                const float *stats, field gradient, field q_gradient, field k_gradient, field v_gradient, int64_t heads,
                int64_t queries, int64_t keys, int64_t width, int64_t first, int64_t last) {
    int64_t padded = padded_to_lanes(keys), all_rows = (queries + ROWS - 1) / ROWS * ROWS;
    float *turned_k = malloc((2 * width + 2 * all_rows) * padded * sizeof(float) + padded);
    if (!turned_k) return 1;
    float *turned_v = turned_k + width * padded, *weights = turned_v + width * padded;
    float *slopes = weights + all_rows * padded;
    uint8_t *flags = (uint8_t *)(slopes + all_rows * padded);
    memset(flags, 0, padded);
    for (int64_t one = first; one < last; one++) {
        int64_t text = one / heads, head = one % heads;
        const float *k_here = head_of(k, text, head);
        const float *q_here = head_of(q, text, head);
        const float *outer = head_of(gradient, text, head);
        const float *row[ROWS];
        turn(k_here, k.token, keys, padded, width, turned_k);
        turn(head_of(v, text, head), v.token, keys, padded, width, turned_v);
        for (int64_t top = 0; top < queries; top += ROWS) {
            float *weight = weights + top * padded, *slope = slopes + top * padded;
            int rows = rows_from(top, queries, q_here, q.token, row);
            across(row, turned_k, padded, width, weight);
            rows_from(top, queries, outer, gradient.token, row);
            across(row, turned_v, padded, width, slope);
            for (int i = 0; i < rows; i++) {
                float *x = weight + i * padded, *y = slope + i * padded;
                const float *kept_here = stats + 2 * (one * queries + top + i);
                add_bias(x, scale, bias.at ? head_of(bias, text, head) + (top + i) * bias.token : 0, keys, padded);
                if (kept) memcpy(flags, kept + (one * queries + top + i) * keys, keys);
                lanes total = {0};
                for (int64_t s = 0; s < padded; s += WIDTH) {
                    lanes value = exp_of(of(x + s) - kept_here[0]) * kept_here[1], change = of(y + s) * kept_scale;
                    if (kept) change = where(flags + s, change);
                    total += value * change;
                    to(x + s, value);
                    to(y + s, change);
                }
                float mean = sum(total);
                for (int64_t s = 0; s < padded; s += WIDTH) {
                    lanes value = of(x + s), dropped = value * kept_scale;
                    to(y + s, value * (of(y + s) - mean) * scale);
                    to(x + s, kept ? where(flags + s, dropped) : dropped);
                }
            }
            if (q_gradient.at)
                mix(slope, padded, 1, k_here, k.token, keys,
                    head_of(q_gradient, text, head) + top * q_gradient.token, q_gradient.token, rows, width);
        }
        for (int64_t top = 0; top < keys; top += ROWS) {
            int rows = keys - top < ROWS ? (int)(keys - top) : ROWS;
            if (k_gradient.at)
                mix(slopes + top, 1, padded, q_here, q.token, queries,
                    head_of(k_gradient, text, head) + top * k_gradient.token, k_gradient.token, rows, width);
            if (v_gradient.at)
                mix(weights + top, 1, padded, outer, gradient.token, queries,
                    head_of(v_gradient, text, head) + top * v_gradient.token, v_gradient.token, rows, width);
        }
    }
    free(turned_k);
    return 0;
}
