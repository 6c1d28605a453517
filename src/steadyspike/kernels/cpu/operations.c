/* The layer kernels on a CPU. kernels/__init__.py describes each function.
 *
 * A step's tensor is R rows (batch and place) of C channels. Every input is read from memory once
 * and every output written once: rows are processed in blocks that fit the caches, and a second
 * pass (deviations from a mean) reads the block from the cache.
 *
 * The same bits everywhere: blocks depend on the shape alone, never on the number of threads, and
 * are combined in order. Compiled without contraction or reassociation of floats, vectors of any
 * width compute the same, since all loops run over independent lanes.
 *
 * Compiled once for float currents, and once with -DBFLOAT16 for those in bfloat16.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef BFLOAT16
typedef uint16_t real;
static inline float load(real h) {
    uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static inline real store(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16; /* to nearest, ties to even */
    return (real)(x != x ? (bits >> 16) | 0x40u : rounded);
}
#else
typedef float real;
static inline float load(real x) { return x; }
static inline real store(float x) { return x; }
#endif

enum { BLOCK = 8192, ROWS = 64 };

/* As many rows as make 32 KiB of floats, but at least ROWS: combining a block with the others takes
 * as long as some rows. */
static int64_t rows_of_block(int64_t C) { return C * ROWS < BLOCK ? BLOCK / C : ROWS; }
static int64_t blocks_of(int64_t R, int64_t C) {
    int64_t rows = rows_of_block(C);
    return (R + rows - 1) / rows;
}
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Scratch floats for moments and grad_sums; charge needs as many doubles, with K = C = 1. */
int64_t scratch_floats(int64_t K, int64_t R, int64_t C) { return 3 * K * blocks_of(R, C) * C; }

/* Starting threads costs more than a small loop. */
#define PARALLEL(elements) omp parallel for schedule(static) num_threads(threads) \
    if (threads > 1 && (elements) > 4 * BLOCK)
#define PRAGMA(x) _Pragma(#x)
#define DO_PARALLEL(elements) PRAGMA_(PARALLEL(elements))
#define PRAGMA_(x) PRAGMA(x)

/* Adds up the deviations from m of n rows, and their squares. A function, so that the compiler
 * sees that what is written is nowhere read. */
static void deviations(const real *restrict p, int64_t n, int64_t C, const float *restrict m,
                       float *restrict s, float *restrict off) {
    int64_t r = 0;
    for (; r + 4 <= n; r += 4) {
        const real *q = p + r * C;
        for (int64_t j = 0; j < C; j++) {
            float a = load(q[j]) - m[j], b = load(q[C + j]) - m[j];
            float c = load(q[2 * C + j]) - m[j], d = load(q[3 * C + j]) - m[j];
            s[j] += (a * a + b * b) + (c * c + d * d);
            off[j] += (a + b) + (c + d);
        }
    }
    for (; r < n; r++)
        for (int64_t j = 0; j < C; j++) {
            float d = load(p[r * C + j]) - m[j];
            s[j] += d * d;
            off[j] += d;
        }
}

/* mean, var (K, C) of x (K, R, C); scratch as scratch_floats says. */
void moments(const real *restrict x, int64_t K, int64_t R, int64_t C, float *restrict mean,
             float *restrict var, float *restrict scratch, int threads) {
    int64_t rows = rows_of_block(C), blocks = blocks_of(R, C);
    DO_PARALLEL(K * R * C)
    for (int64_t i = 0; i < K * blocks; i++) {
        int64_t first = i % blocks * rows, n = least(rows, R - first);
        const real *restrict p = x + (i / blocks * R + first) * C;
        float *restrict m = scratch + 3 * i * C, *restrict s = m + C, *restrict off = s + C;
        memset(m, 0, 3 * C * sizeof(float));
        int64_t r = 0;
        for (; r + 4 <= n; r += 4) {
            const real *a = p + r * C, *b = a + C, *c = b + C, *d = c + C;
            for (int64_t j = 0; j < C; j++)
                m[j] += (load(a[j]) + load(b[j])) + (load(c[j]) + load(d[j]));
        }
        for (; r < n; r++)
            for (int64_t j = 0; j < C; j++) m[j] += load(p[r * C + j]);
        for (int64_t j = 0; j < C; j++) m[j] /= (float)n;
        deviations(p, n, C, m, s, off);
    }
    DO_PARALLEL(K * blocks * C)
    for (int64_t i = 0; i < K * C; i++) { /* Chan's combination, block by block */
        int64_t k = i / C, j = i % C;
        double whole = 0, squares = 0, count = 0, usual = 1 / (double)rows;
        for (int64_t b = 0; b < blocks; b++) {
            const float *m = scratch + 3 * (k * blocks + b) * C;
            double n = (double)least(rows, R - b * rows), share = n / (count + n);
            double off = m[2 * C + j] * (b < blocks - 1 ? usual : 1 / n); /* m is rounded */
            double d = m[j] + off - whole;
            squares += m[C + j] - off * off * n + d * d * (count * share);
            whole += d * share;
            count += n;
        }
        mean[i] = (float)whole;
        var[i] = squares > 0 || squares != squares ? (float)(squares / count) : 0;
    }
}

/* Eight floats that need no alignment; SUMS of them are added up side by side, since each addition
 * waits for the one before it. */
typedef float eight __attribute__((vector_size(32), aligned(4), may_alias));
enum { SUMS = 8, STRIDE = 8 * SUMS };

static double total_of(const eight *sums) {
    double total = 0;
    for (int s = 0; s < SUMS; s++)
        for (int l = 0; l < 8; l++) total += sums[s][l];
    return total;
}

/* Mean and sum of squared deviations of n floats in the caches. */
static void spread(const float *restrict p, int64_t n, double *mean, double *squares) {
    eight sums[SUMS] = {{0}};
    int64_t i = 0;
    for (; i + STRIDE <= n; i += STRIDE)
        for (int s = 0; s < SUMS; s++) sums[s] += *(const eight *)(p + i + 8 * s);
    double total = total_of(sums);
    for (int64_t t = i; t < n; t++) total += p[t];
    float m = (float)(total / (double)n); /* nearly: the sum is rounded */
    eight squared[SUMS] = {{0}}, rest[SUMS] = {{0}};
    for (i = 0; i + STRIDE <= n; i += STRIDE)
        for (int s = 0; s < SUMS; s++) {
            eight d = *(const eight *)(p + i + 8 * s) - m;
            squared[s] += d * d;
            rest[s] += d;
        }
    double about = total_of(squared), off = total_of(rest);
    for (; i < n; i++) {
        double d = p[i] - m;
        about += d * d;
        off += d;
    }
    *mean = m + off / (double)n;
    *squares = about - off * off / (double)n;
}

/* x or 0, also of an x that is infinite, without a branch. */
static inline float masked(float x, uint32_t mask) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits &= mask;
    memcpy(&x, &bits, 4);
    return x;
}

/* One step: out (R, C) = scale x + shift + leak reset(before). scale and shift, before, spikes and
 * statistics (2,) may be NULL; scratch: 2 doubles a block. */
void charge(const real *restrict x, const float *restrict scale, const float *restrict shift,
            const float *restrict before, const float *restrict threshold, float leak,
            int zero_reset, float *restrict out, real *restrict spikes, float fire_at,
            double *restrict statistics, double *restrict scratch, int64_t R, int64_t C,
            int threads) {
    int64_t rows = rows_of_block(C), blocks = blocks_of(R, C);
    float theta = before ? *threshold : 0;
    uint32_t kept = zero_reset ? 0 : ~0u; /* of what is over the threshold: none, or all bits */
    real one = store(1), zero = store(0);
    DO_PARALLEL(R * C)
    for (int64_t i = 0; i < blocks; i++) {
        int64_t first = i * rows, n = least(rows, R - first);
        for (int64_t r = first; r < first + n; r++) {
            const real *restrict p = x + r * C;
            float *restrict u = out + r * C;
            if (scale)
                for (int64_t j = 0; j < C; j++) u[j] = load(p[j]) * scale[j] + shift[j];
            else
                for (int64_t j = 0; j < C; j++) u[j] = load(p[j]);
            if (before) {
                const float *restrict b = before + r * C;
                for (int64_t j = 0; j < C; j++) {
                    float left = masked(b[j] - theta, kept);
                    u[j] += leak * (b[j] >= theta ? left : b[j]);
                }
            }
            if (spikes) {
                real *restrict s = spikes + r * C;
                for (int64_t j = 0; j < C; j++) s[j] = u[j] >= fire_at ? one : zero;
            }
        }
        if (statistics) spread(out + first * C, n * C, scratch + 2 * i, scratch + 2 * i + 1);
    }
    if (!statistics) return;
    double whole = 0, squares = 0, count = 0;
    for (int64_t b = 0; b < blocks; b++) {
        double n = (double)(least(rows, R - b * rows) * C), d = scratch[2 * b] - whole;
        squares += scratch[2 * b + 1] + d * d * (count * n / (count + n));
        whole += d * (n / (count + n));
        count += n;
    }
    statistics[0] = whole;
    statistics[1] = squares > 0 || squares != squares ? squares : 0;
}

/* out = 1 where u >= threshold, else 0, of n values. */
void fire(const float *restrict u, const float *restrict threshold, real *restrict out, int64_t n,
          int threads) {
    float theta = *threshold;
    real one = store(1), zero = store(0);
    DO_PARALLEL(n)
    for (int64_t b = 0; b < (n + BLOCK - 1) / BLOCK; b++)
        for (int64_t i = b * BLOCK; i < least(n, (b + 1) * BLOCK); i++)
            out[i] = u[i] >= theta ? one : zero;
}

/* k s (1 - s), s = 1 / (1 + exp(-k x)): the same for x and -x, so exp(-|k x|) serves. */
static inline float surrogate(float x, float slope) {
    float z = fabsf(slope * x);
    z = z > 80.0f ? 80.0f : z; /* a NaN stays one */
    float magic = 12582912.0f, n = z * 1.44269504f + magic; /* rounds: 1.5 * 2^23 */
    int32_t bits;
    memcpy(&bits, &n, 4);
    n -= magic;
    float r = n * 0.693145752f - z; /* -z + n log 2, in two parts */
    r += n * 1.42860677e-6f;
    float e = 1.0f / 720.0f; /* exp(r), |r| <= log(2) / 2 */
    e = e * r + 1.0f / 120.0f;
    e = e * r + 1.0f / 24.0f;
    e = e * r + 1.0f / 6.0f;
    e = e * r + 0.5f;
    e = e * r + 1.0f;
    e = e * r + 1.0f;
    bits = (127 + 0x4b400000 - bits) << 23; /* 2^-n */
    float power;
    memcpy(&power, &bits, 4);
    e *= power;
    return slope * e / ((1.0f + e) * (1.0f + e));
}

/* sum and dot (K, C): sums of g and of g (x - mean) / std, where g is grad (K, R, C), times the
 * surrogate at u - threshold if u is not NULL. scratch as scratch_floats says. */
void grad_sums(const real *restrict grad, const float *restrict u,
               const float *restrict thresholds, float slope, const real *restrict x,
               const float *restrict mean, const float *restrict std, float *restrict sum,
               float *restrict dot, float *restrict scratch, int64_t K, int64_t R, int64_t C,
               int threads) {
    int64_t rows = rows_of_block(C), blocks = blocks_of(R, C);
    DO_PARALLEL(K * R * C)
    for (int64_t i = 0; i < K * blocks; i++) {
        int64_t k = i / blocks, first = i % blocks * rows, n = least(rows, R - first);
        int64_t at = (k * R + first) * C;
        const float *restrict centre = mean + k * C;
        float *restrict s = scratch + 2 * i * C, *restrict t = s + C;
        memset(s, 0, 2 * C * sizeof(float));
        float theta = u ? thresholds[k] : 0;
        for (int64_t r = 0; r < n; r++) {
            const real *restrict p = grad + at + r * C, *restrict q = x + at + r * C;
            if (u) {
                const float *restrict v = u + at + r * C;
                for (int64_t j = 0; j < C; j++) {
                    float g = load(p[j]) * surrogate(v[j] - theta, slope);
                    s[j] += g;
                    t[j] += g * (load(q[j]) - centre[j]);
                }
            } else
                for (int64_t j = 0; j < C; j++) {
                    float g = load(p[j]);
                    s[j] += g;
                    t[j] += g * (load(q[j]) - centre[j]);
                }
        }
    }
    DO_PARALLEL(K * blocks * C)
    for (int64_t i = 0; i < K * C; i++) {
        double a = 0, b = 0;
        for (int64_t block = 0; block < blocks; block++) {
            const float *s = scratch + 2 * (i / C * blocks + block) * C;
            a += s[i % C];
            b += s[C + i % C];
        }
        sum[i] = (float)a;
        dot[i] = (float)(b / std[i]);
    }
}

/* out (K, R, C) = a g + b + c (x - mean) / std with g as above and a, b, c (K, C); x may be NULL,
 * and then out = g. scratch: K C floats. */
void grad_input(const real *restrict grad, const float *restrict u,
                const float *restrict thresholds, float slope, const real *restrict x,
                const float *restrict mean, const float *restrict std, const float *restrict a,
                const float *restrict b, const float *restrict c, real *restrict out,
                float *restrict scratch, int64_t K, int64_t R, int64_t C, int threads) {
    int64_t rows = rows_of_block(C), blocks = blocks_of(R, C);
    if (x)
        for (int64_t i = 0; i < K * C; i++) scratch[i] = c[i] / std[i];
    DO_PARALLEL(K * R * C)
    for (int64_t i = 0; i < K * blocks; i++) {
        int64_t k = i / blocks, first = i % blocks * rows, n = least(rows, R - first);
        float theta = u ? thresholds[k] : 0;
        for (int64_t r = 0; r < n; r++) {
            int64_t at = (k * R + first + r) * C;
            const real *restrict p = grad + at;
            const float *restrict v = u + at;
            real *restrict o = out + at;
            if (x) {
                const real *restrict q = x + at;
                const float *restrict aa = a + k * C, *restrict bb = b + k * C;
                const float *restrict cc = scratch + k * C, *restrict centre = mean + k * C;
                if (u)
                    for (int64_t j = 0; j < C; j++) {
                        float g = load(p[j]) * surrogate(v[j] - theta, slope);
                        o[j] = store((aa[j] * g + bb[j]) + cc[j] * (load(q[j]) - centre[j]));
                    }
                else
                    for (int64_t j = 0; j < C; j++)
                        o[j] = store((aa[j] * load(p[j]) + bb[j]) +
                                     cc[j] * (load(q[j]) - centre[j]));
            } else
                for (int64_t j = 0; j < C; j++)
                    o[j] = u ? store(load(p[j]) * surrogate(v[j] - theta, slope)) : p[j];
        }
    }
}

/* Multiples of 1 / levels as bytes, and back. */
void pack(const real *restrict x, uint8_t *restrict out, float levels, int64_t n, int threads) {
    DO_PARALLEL(n)
    for (int64_t b = 0; b < (n + BLOCK - 1) / BLOCK; b++)
        for (int64_t i = b * BLOCK; i < least(n, (b + 1) * BLOCK); i++)
            out[i] = (uint8_t)(int32_t)(load(x[i]) * levels + 0.5f);
}

void unpack(const uint8_t *restrict packed, real *restrict out, float levels, int64_t n,
            int threads) {
    DO_PARALLEL(n)
    for (int64_t b = 0; b < (n + BLOCK - 1) / BLOCK; b++)
        for (int64_t i = b * BLOCK; i < least(n, (b + 1) * BLOCK); i++)
            out[i] = store((float)(int32_t)packed[i] / levels);
}
