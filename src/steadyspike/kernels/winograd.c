/* Convolutions of 3 by 3, stride 1, padding 1, by Winograd's F(2x2, 3x3): 16 products of matrices
 * where the direct way takes 36 (Lavin and Gray, 2015).
 *
 *   a tile of the output:  y = At [U . V] A,   U = G g Gt,   V = Bt d B
 *   its weights' gradient: dg = Gt [(A dy At) . V] G
 *
 * with d the tile's 4 by 4 inputs and y its 2 by 2 outputs. The data are only added up, the weights
 * halved: results are as exact as those of a direct convolution in float. Images are (N, H, W, C).
 *
 * Tiles come in blocks whose transforms stay in the second cache, and never reach memory.
 *
 * The same bits everywhere: every product adds up its terms one after the other with fused
 * multiplications, in the order of channels or of tiles; vectors run over other, independent lanes.
 * Sums over tiles are of parts whose size is fixed, put together in order.
 */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num(void) { return 0; }
#endif

#ifdef __AVX512F__
typedef __m512 vector;
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define FILL _mm512_set1_ps
#define ADD _mm512_add_ps
#define FUSED _mm512_fmadd_ps
enum { LANES = 16, ROWS = 14 };
#else
typedef __m256 vector;
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define FILL _mm256_set1_ps
#define ADD _mm256_add_ps
#define FUSED _mm256_fmadd_ps
enum { LANES = 8, ROWS = 6 };
#endif

enum {
    COLUMNS = 2 * LANES, /* of a product's piece in registers, ROWS by COLUMNS */
    LINE = 16,           /* floats of a cache line */
    PAD = 32,            /* channels are padded to this, a multiple of any COLUMNS */
    CHUNK = 64,          /* channels of either side in a piece of the weights' gradient */
    DEEP = 32,           /* tiles of a block there */
    PART = 2048,         /* tiles of a partial sum there */
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t over(int64_t a, int64_t b) { return (a + b - 1) / b; }
/* An odd number of cache lines: neighbours do not fall on each other in the first cache. */
static int64_t pitch(int64_t C) { return over(C, PAD) * PAD + LINE; }
static int64_t plane(int64_t rows, int64_t pitch) { return (rows * pitch / LINE | 1) * LINE; }

/* c (rows, COLUMNS) = a (rows, K) b (K, COLUMNS), or added to c. */
static inline __attribute__((always_inline)) void piece(
    int rows, int added, const float *restrict a, int64_t a_row, int64_t a_k,
    const float *restrict b, int64_t b_k, float *restrict c, int64_t c_row, int64_t K) {
    vector sums[ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        sums[r][0] = sums[r][1] = FILL(0);
    }
    for (int64_t k = 0; k < K; k++, a += a_k, b += b_k) {
        vector left = LOAD(b), right = LOAD(b + LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            vector one = FILL(a[r * a_row]);
            sums[r][0] = FUSED(one, left, sums[r][0]);
            sums[r][1] = FUSED(one, right, sums[r][1]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        float *to = c + r * c_row;
#pragma GCC unroll 2
        for (int side = 0; side < 2; side++, to += LANES)
            STORE(to, added ? ADD(LOAD(to), sums[r][side]) : sums[r][side]);
    }
}

#define EACH_NUMBER_OF_ROWS(CASE) \
    switch (rows) { \
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) \
        MORE_ROWS(CASE) \
    }
#ifdef __AVX512F__
#define MORE_ROWS(CASE) \
    CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14)
#else
#define MORE_ROWS(CASE)
#endif

/* a by rows, b packed. */
static void multiply(int64_t rows, const float *a, int64_t a_row, const float *b, float *c,
                     int64_t c_row, int64_t K) {
#define CASE(n) \
    case n: piece(n, 0, a, a_row, 1, b, COLUMNS, c, c_row, K); break;
    EACH_NUMBER_OF_ROWS(CASE)
#undef CASE
}

/* c += at b, both by rows of one k. */
static void add_outer(int64_t rows, const float *a, int64_t a_k, const float *b, int64_t b_k,
                      float *c, int64_t c_row, int64_t K) {
#define CASE(n) \
    case n: piece(n, 1, a, 1, a_k, b, b_k, c, c_row, K); break;
    EACH_NUMBER_OF_ROWS(CASE)
#undef CASE
}

/* Images and their tiles. */
typedef struct {
    int64_t N, H, W, C, down, across; /* tiles of an image, one below the other and side by side */
} Images;

static Images images(int64_t N, int64_t H, int64_t W, int64_t C) {
    return (Images){N, H, W, C, over(H, 2), over(W, 2)};
}
static int64_t tiles_of(Images of) { return of.N * of.down * of.across; }

/* Where the size by size values of a tile begin, counted in values of one channel, or -1 where
 * there is none: from its upper left output, less the border. */
static void places(Images of, int64_t tile, int size, int border, int64_t *at) {
    int64_t n = tile / (of.down * of.across), y = tile / of.across % of.down * 2 - border,
            x = tile % of.across * 2 - border;
    for (int i = 0; i < size; i++)
        for (int j = 0; j < size; j++) {
            int in = y + i >= 0 && y + i < of.H && x + j >= 0 && x + j < of.W;
            *at++ = in ? ((n * of.H + y + i) * of.W + x + j) * of.C : -1;
        }
}

/* V = Bt d B of C channels, V[xi] step apart. */
#define TRANSFORM(NAME, REAL) \
    static void NAME(Images of, const REAL *x, int64_t tile, int64_t C, const REAL *none, \
                     float *v, int64_t step) { \
        int64_t at[16]; \
        const REAL *d[16]; \
        places(of, tile, 4, 1, at); \
        for (int i = 0; i < 16; i++) d[i] = at[i] < 0 ? none : x + at[i]; \
        _Pragma("GCC ivdep") for (int64_t c = 0; c < C; c++) { \
            SIDE(0) SIDE(1) SIDE(2) SIDE(3) \
            ACROSS(0) ACROSS(1) ACROSS(2) ACROSS(3) \
        } \
    }
#define SIDE(j) \
    float a##j = d[j][c], b##j = d[4 + j][c], c##j = d[8 + j][c], d##j = d[12 + j][c]; \
    float t0##j = a##j - c##j, t1##j = b##j + c##j, t2##j = c##j - b##j, t3##j = b##j - d##j;
#define ACROSS(i) \
    v[(4 * i + 0) * step + c] = t##i##0 - t##i##2; \
    v[(4 * i + 1) * step + c] = t##i##1 + t##i##2; \
    v[(4 * i + 2) * step + c] = t##i##2 - t##i##1; \
    v[(4 * i + 3) * step + c] = t##i##1 - t##i##3;
TRANSFORM(transform, float)
TRANSFORM(transform_bytes, uint8_t)

/* A dy At. */
static void transform_gradient(Images of, const float *dy, int64_t tile, int64_t C,
                               const float *none, float *v, int64_t step) {
    int64_t at[4];
    const float *d[4];
    places(of, tile, 2, 0, at);
    for (int i = 0; i < 4; i++) d[i] = at[i] < 0 ? none : dy + at[i];
#pragma GCC ivdep
    for (int64_t c = 0; c < C; c++) {
        float p = d[0][c], q = d[1][c], r = d[2][c], s = d[3][c];
        float t[4][2] = {{p, q}, {p + r, q + s}, {p - r, q - s}, {-r, -s}};
#define OUT(i) \
    v[(4 * i + 0) * step + c] = t[i][0]; \
    v[(4 * i + 1) * step + c] = t[i][0] + t[i][1]; \
    v[(4 * i + 2) * step + c] = t[i][0] - t[i][1]; \
    v[(4 * i + 3) * step + c] = -t[i][1];
        OUT(0) OUT(1) OUT(2) OUT(3)
#undef OUT
    }
}

/* y = At M A + bias of C channels; what lies beyond the image goes to nowhere. */
static void transform_back(Images of, const float *m, int64_t step, int64_t tile,
                           const float *bias, float *nowhere, float *y) {
    int64_t at[4];
    float *out[4];
    places(of, tile, 2, 0, at);
    for (int i = 0; i < 4; i++) out[i] = at[i] < 0 ? nowhere : y + at[i];
#pragma GCC ivdep
    for (int64_t c = 0; c < of.C; c++) {
#define DOWN(j) \
    float a##j = m[j * step + c], b##j = m[(4 + j) * step + c], c##j = m[(8 + j) * step + c], \
          d##j = m[(12 + j) * step + c]; \
    float s##j = a##j + b##j + c##j, t##j = b##j - c##j - d##j;
        DOWN(0) DOWN(1) DOWN(2) DOWN(3)
#undef DOWN
        float shift = bias[c];
        out[0][c] = s0 + s1 + s2 + shift;
        out[1][c] = s1 - s2 - s3 + shift;
        out[2][c] = t0 + t1 + t2 + shift;
        out[3][c] = t1 - t2 - t3 + shift;
    }
}

int64_t packed_floats(int64_t Ci, int64_t Co) { return 16 * Ci * over(Co, PAD) * PAD; }

/* U = G g Gt of weights g whose element (input, output, row, column) lies where the strides say:
 * packed (16, pieces of COLUMNS outputs, Ci, COLUMNS), zeros where there is no output. */
void pack_weights(const float *g, const int64_t *stride, int64_t Ci, int64_t Co, float *U,
                  int threads) {
    int64_t wide = over(Co, PAD) * PAD, pieces = wide / COLUMNS, deep = over(Ci, LINE);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t task = 0; task < pieces * deep; task++) {
        int64_t first = task / deep * COLUMNS, k0 = task % deep * LINE;
        int64_t n = least(COLUMNS, Co - first), depth = least(LINE, Ci - k0);
        float part[9][LINE][COLUMNS];
        if (n < COLUMNS) memset(part, 0, sizeof part);
        for (int64_t j = 0; j < n; j++)
            for (int i = 0; i < 9; i++) {
                const float *from =
                    g + (first + j) * stride[1] + i / 3 * stride[2] + i % 3 * stride[3];
                for (int64_t k = 0; k < depth; k++) part[i][k][j] = from[(k0 + k) * stride[0]];
            }
        for (int64_t k = 0; k < depth; k++)
            for (int64_t j = 0; j < COLUMNS; j++) {
                float *u = U + (first * Ci + (k0 + k) * COLUMNS) + j;
#define THREE(a, b, c) {a, 0.5f * (a + b + c), 0.5f * (a - b + c), c}
#define SIDE3(i) \
    float t##i[4] = THREE(part[i][k][j], part[3 + i][k][j], part[6 + i][k][j]);
                SIDE3(0) SIDE3(1) SIDE3(2)
                for (int i = 0; i < 4; i++) {
                    float v[4] = THREE(t0[i], t1[i], t2[i]);
                    for (int l = 0; l < 4; l++) u[(4 * i + l) * Ci * wide] = v[l];
                }
            }
    }
}

/* Floats of scratch that `convolve` wants for each thread, with blocks of so many tiles. */
int64_t convolve_floats(int64_t Ci, int64_t Co, int64_t block) {
    int64_t in = pitch(Ci), out = pitch(Co);
    return in + 2 * out + 16 * (plane(block, in) + plane(block, out));
}

/* y (N, H, W, Co) = x (N, H, W, Ci) convolved with U of `pack_weights`, + bias (Co,) or NULL. */
void convolve(const float *x, int64_t N, int64_t H, int64_t W, int64_t Ci, int64_t Co,
              const float *U, const float *bias, float *y, float *scratch, int64_t block,
              int threads) {
    Images from = images(N, H, W, Ci), to = images(N, H, W, Co);
    int64_t tiles = tiles_of(from), in = pitch(Ci), out = pitch(Co), wide = over(Co, PAD) * PAD;
    int64_t v_step = plane(block, in), m_step = plane(block, out);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int64_t first = 0; first < tiles; first += block) {
        float *none = scratch + omp_get_thread_num() * convolve_floats(Ci, Co, block);
        float *nowhere = none + in, *shift = nowhere + out;
        float *V = shift + out, *M = V + 16 * v_step;
        int64_t n = least(block, tiles - first);
        memset(none, 0, in * sizeof(float));
        memset(shift, 0, out * sizeof(float));
        if (bias) memcpy(shift, bias, Co * sizeof(float));
        for (int64_t t = 0; t < n; t++) transform(from, x, first + t, Ci, none, V + t * in, v_step);
        for (int xi = 0; xi < 16; xi++)
            for (int64_t j = 0; j < wide; j += COLUMNS)
                for (int64_t t = 0; t < n; t += ROWS)
                    multiply(least(ROWS, n - t), V + xi * v_step + t * in, in,
                             U + (xi * wide + j) * Ci, M + xi * m_step + t * out + j, out, Ci);
        for (int64_t t = 0; t < n; t++)
            transform_back(to, M + t * out, m_step, first + t, shift, nowhere, y);
    }
}

/* Partial sums of the weights' gradient, and floats of scratch for each thread. */
int64_t parts_of(int64_t N, int64_t H, int64_t W) { return over(tiles_of(images(N, H, W, 1)), PART); }
int64_t part_floats(int64_t Ci, int64_t Co) { return (9 * Ci + 1) * Co; }
int64_t gradient_floats(void) {
    return pitch(CHUNK) + 16 * (2 * plane(DEEP, pitch(CHUNK)) + plane(CHUNK, pitch(CHUNK)));
}

/* Partial sums (parts, 9 Ci + 1, Co) of the gradients of the weights, (3, 3, Ci, Co), and of the
 * bias, (Co,), from x (N, H, W, Ci), floats or bytes, and dy (N, H, W, Co). */
void gradient_parts(const void *x, int bytes, const float *dy, int64_t N, int64_t H, int64_t W,
                    int64_t Ci, int64_t Co, float *parts, float *scratch, int threads) {
    Images from = images(N, H, W, Ci), to = images(N, H, W, Co);
    int64_t tiles = tiles_of(from), wide = pitch(CHUNK);
    int64_t step = plane(DEEP, wide), s_step = plane(CHUNK, wide);
    int64_t ins = over(Ci, CHUNK), outs = over(Co, CHUNK), tasks = over(tiles, PART) * ins * outs;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t i0 = task % ins * CHUNK, o0 = task / ins % outs * CHUNK, p = task / ins / outs;
        int64_t ni = least(CHUNK, Ci - i0), no = least(CHUNK, Co - o0);
        int64_t end = least(tiles, (p + 1) * PART);
        float *none = scratch + omp_get_thread_num() * gradient_floats();
        float *V = none + wide, *Y = V + 16 * step, *S = Y + 16 * step;
        float *part = parts + p * part_floats(Ci, Co), *bias = part + 9 * Ci * Co + o0;
        memset(none, 0, gradient_floats() * sizeof(float));
        if (!i0) memset(bias, 0, no * sizeof(float));
        for (int64_t first = p * PART; first < end; first += DEEP) {
            int64_t n = least(DEEP, end - first);
            for (int64_t t = 0; t < n; t++) {
                if (bytes)
                    transform_bytes(from, (const uint8_t *)x + i0, first + t, ni,
                                    (const uint8_t *)none, V + t * wide, step);
                else
                    transform(from, (const float *)x + i0, first + t, ni, none, V + t * wide, step);
                transform_gradient(to, dy + o0, first + t, no, none, Y + t * wide, step);
                if (!i0) /* the middle of A dy At is the sum of the tile */
                    for (int64_t j = 0; j < no; j++) bias[j] += Y[5 * step + t * wide + j];
            }
            for (int xi = 0; xi < 16; xi++)
                for (int64_t j = 0; j < no; j += COLUMNS)
                    for (int64_t i = 0; i < ni; i += ROWS)
                        add_outer(least(ROWS, ni - i), V + xi * step + i, wide, Y + xi * step + j,
                                  wide, S + xi * s_step + i * wide + j, wide, n);
        }
        for (int64_t i = 0; i < ni; i++) { /* Gt S G */
            const float *s = S + i * wide;
            float *to_g = part + (i0 + i) * Co + o0;
#pragma GCC ivdep
            for (int64_t j = 0; j < no; j++) {
#define BACK(a, b, c, d) {(a) + 0.5f * ((b) + (c)), 0.5f * ((b) - (c)), 0.5f * ((b) + (c)) + (d)}
#define SIDE4(l) \
    float t##l[3] = BACK(s[l * s_step + j], s[(4 + l) * s_step + j], s[(8 + l) * s_step + j], \
                         s[(12 + l) * s_step + j]);
                SIDE4(0) SIDE4(1) SIDE4(2) SIDE4(3)
#define ROW(l) \
    { \
        float g[3] = BACK(t0[l], t1[l], t2[l], t3[l]); \
        to_g[(3 * l + 0) * Ci * Co + j] = g[0]; \
        to_g[(3 * l + 1) * Ci * Co + j] = g[1]; \
        to_g[(3 * l + 2) * Ci * Co + j] = g[2]; \
    }
                ROW(0) ROW(1) ROW(2)
            }
        }
    }
}

/* The parts put together, times scale: dg where the strides (input, output, row, column) say, and
 * the bias's gradient (Co,), not scaled. */
void gradient(const float *parts, int64_t count, int64_t Ci, int64_t Co, float scale, float *dg,
              const int64_t *stride, float *bias, int threads) {
    int64_t size = part_floats(Ci, Co);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < over(Ci, LINE); i++) {
        float row[LINE][64];
        for (int64_t rs = 0; rs < 9; rs++)
            for (int64_t o0 = 0; o0 < Co; o0 += 64) {
                int64_t ni = least(LINE, Ci - i * LINE), no = least(64, Co - o0);
                for (int64_t k = 0; k < ni; k++) {
                    const float *from = parts + (rs * Ci + i * LINE + k) * Co + o0;
                    for (int64_t j = 0; j < no; j++) row[k][j] = count ? from[j] : 0;
                    for (int64_t p = 1; p < count; p++)
                        for (int64_t j = 0; j < no; j++) row[k][j] += from[p * size + j];
                }
                for (int64_t j = 0; j < no; j++)
                    for (int64_t k = 0; k < ni; k++)
                        dg[(i * LINE + k) * stride[0] + (o0 + j) * stride[1] + rs / 3 * stride[2] +
                           rs % 3 * stride[3]] = row[k][j] * scale;
            }
    }
    for (int64_t j = 0; j < Co; j++) {
        bias[j] = 0;
        for (int64_t p = 0; p < count; p++) bias[j] += parts[p * size + 9 * Ci * Co + j];
    }
}
