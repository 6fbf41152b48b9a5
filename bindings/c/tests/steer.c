/* What steers a picture, and latents in and out: run by tools/test-c.sh under ASan, which compares the
 * pictures with those of `mos`.
 *     steer NETWORK IMAGE STEERED.png NOISE.safetensors NOISE.png HIRES.png
 */
#include <math.h>
#include <mixofshow.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #what, mos_last_error());       \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)
#define SAYS(words) CHECK(strstr(mos_last_error(), words) != NULL)

static MosRequest quick(void) {
    MosRequest request;
    CHECK(mos_request_init(&request, sizeof request) == MOS_OK);
    request.prompt = "a cat";
    request.seed = 1;
    request.width = request.height = 64;
    request.steps = 2;
    return request;
}

int main(int count, char **arguments) {
    CHECK(count == 7);
    MosModel *model;
    MosLoad load;
    CHECK(mos_load_init(&load, sizeof load) == MOS_OK);
    load.device = "cpu";
    CHECK(mos_model_load(&load, &model) == MOS_OK);
    MosPictures *pictures, *others;

    /* A network that steers. */
    MosControl control;
    CHECK(mos_control_init(&control, sizeof control) == MOS_OK && control.weight == 1);
    MosRequest request = quick();
    const MosControl *controls[] = {&control, &control};
    request.controls = controls;
    request.control_count = 1;
    CHECK(mos_generate(model, &request, &pictures) == MOS_ERROR && pictures == NULL);
    SAYS("network of a MosControl is NULL");
    control.network = arguments[1];
    control.image = "/none/a.png";
    CHECK(mos_generate(model, &request, &pictures) == MOS_ERROR);
    SAYS("/none/a.png");
    control.image = arguments[2];
    control.make = "lines";
    CHECK(mos_generate(model, &request, &pictures) == MOS_ERROR);
    SAYS("lines");
    control.make = "outline";
    control.weight = 0.7f;
    control.end = 0.9;
    request.control_count = 2;
    CHECK(mos_generate(model, &request, &pictures) == MOS_ERROR);
    SAYS("two controls");
    request.control_count = 1;
    CHECK(mos_generate(model, &request, &pictures) == MOS_OK);
    CHECK(mos_pictures_save(pictures, 0, arguments[3]) == MOS_OK);

    /* Latents out, and decoded to the same pixels. */
    size_t shape[4];
    const float *latents = mos_pictures_latents(pictures, shape);
    CHECK(latents != NULL && shape[0] == 1 && shape[2] == shape[3] && shape[2] > 1);
    CHECK(latents == mos_pictures_latents(pictures, NULL));
    CHECK(mos_model_decode(model, latents, shape, 0, &others) == MOS_OK);
    CHECK(mos_pictures_width(others) == 64 && mos_pictures_height(others) == 64);
    CHECK(memcmp(mos_pictures_rgb(pictures, 0), mos_pictures_rgb(others, 0), 64 * 64 * 3) == 0);
    CHECK(mos_pictures_seed(pictures, 0) == 1 && mos_pictures_seed(others, 0) == 0);
    mos_pictures_free(others);
    size_t none[4] = {1, 4, 0, 3}, large[4] = {1, (size_t)-1, 2, 2};
    CHECK(mos_model_decode(model, latents, none, 0, &others) == MOS_ERROR && others == NULL);
    SAYS("1 x 4 x 0 x 3");
    CHECK(mos_model_decode(model, latents, large, 0, &others) == MOS_ERROR);
    CHECK(mos_model_decode(model, NULL, shape, 0, &others) == MOS_ERROR);
    SAYS("NULL");
    mos_pictures_free(pictures);

    /* A picture's latents. */
    MosLatents *encoded;
    CHECK(mos_model_encode(model, arguments[2], 0, &encoded) == MOS_OK);
    const size_t *sides = mos_latents_shape(encoded);
    CHECK(sides[0] == 1 && sides[1] == shape[1] && isfinite(mos_latents_values(encoded)[0]));
    mos_latents_free(encoded);
    CHECK(mos_model_encode(model, "/none/a.png", 0, &encoded) == MOS_ERROR && encoded == NULL);
    mos_latents_free(NULL);

    /* Noise of a file, and the same of an array: the same pixels. */
    request = quick();
    request.noise_file = arguments[4];
    CHECK(mos_generate(model, &request, &pictures) == MOS_OK);
    CHECK(mos_pictures_save(pictures, 0, arguments[5]) == MOS_OK);
    FILE *file = fopen(arguments[4], "rb");
    size_t numbers = shape[1] * shape[2] * shape[3];
    float *noise = malloc(numbers * sizeof *noise);
    /* Files of safetensors end in the numbers. */
    CHECK(file && fseek(file, -(long)(numbers * sizeof *noise), SEEK_END) == 0);
    CHECK(fread(noise, sizeof *noise, numbers, file) == numbers);
    fclose(file);
    request.noise = noise;
    memcpy(request.noise_shape, shape, sizeof shape);
    CHECK(mos_generate(model, &request, &others) == MOS_ERROR);
    SAYS("noise_file");
    request.noise_file = NULL;
    CHECK(mos_generate(model, &request, &others) == MOS_OK);
    CHECK(memcmp(mos_pictures_rgb(pictures, 0), mos_pictures_rgb(others, 0), 64 * 64 * 3) == 0);
    mos_pictures_free(pictures), mos_pictures_free(others);
    request.noise_shape[1] += 1;
    noise = realloc(noise, 2 * numbers * sizeof *noise);
    memset(noise + numbers, 0, numbers * sizeof *noise);
    request.noise = noise;
    CHECK(mos_generate(model, &request, &others) == MOS_ERROR);
    free(noise);

    /* All that the program has besides. */
    request = quick();
    request.hires_upscaler = "lanczos";
    CHECK(mos_generate(model, &request, &pictures) == MOS_ERROR);
    SAYS("hires_scale");
    request.hires_scale = 1.5;
    request.hires_strength = 0.5;
    request.guidance_rescale = 0.5f;
    request.guidance_until = 0.8;
    request.cache = 2;
    CHECK(mos_generate(model, &request, &pictures) == MOS_OK);
    CHECK(mos_pictures_width(pictures) == 96);
    CHECK(mos_pictures_save(pictures, 0, arguments[6]) == MOS_OK);
    mos_pictures_free(pictures);
    mos_model_free(model);
    puts("controls, latents and a second pass: as asked");
    return 0;
}
