/* Partial sums of the weights' gradient, each over the same number of tiles, added in order. */
#include <stdint.h>

int64_t parts_of(int64_t N, int64_t H, int64_t W) { return over(tiles_of(images(N, H, W)), PART); }
int64_t part_floats(int64_t Ci, int64_t Co) { return (9 * Ci + 1) * Co; }

/* Gt S G of ni by no channels, of S with rows of wide floats, to their place in a part. */
static void finish_part(const float *S, int64_t s_step, int64_t wide, int64_t ni, int64_t no,
                        int64_t Ci, int64_t Co, float *part) {
    for (int64_t i = 0; i < ni; i++) {
        const float *s = S + i * wide;
        float *to_g = part + i * Co;
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

/* The sum of the parts: the weights' gradient times scale into dg, whose strides are by input,
 * output, row and column; and the bias's gradient (Co,), not scaled. */
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
