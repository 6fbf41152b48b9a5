/* A picture of two regions, with the very small model that ships:
 *     cc picture.c $(pkg-config --cflags --libs mixofshow) -o picture && ./picture two.png
 */
#include <mixofshow.h>
#include <stdio.h>

static int tell(void *user, const char *stage, size_t done, size_t of) {
    (void)user;
    fprintf(stderr, "%s %zu of %zu\n", stage, done, of);
    return 0; /* anything else ends the call */
}

static int failed(void) {
    fprintf(stderr, "error: %s\n", mos_last_error());
    return 1;
}

int main(int count, char **arguments) {
    const char *output = count > 1 ? arguments[1] : "two.png";

    MosLoad load;
    mos_load_init(&load, sizeof load);
    MosModel *model;
    if (mos_model_load(&load, &model) != MOS_OK) return failed();
    printf("mixofshow %s on %s\n", mos_version(), mos_model_device(model));

    MosRegion left, right;
    mos_region_init(&left, sizeof left);
    mos_region_init(&right, sizeof right);
    left.prompt = "a red cat";
    right.prompt = "a blue dog";
    left.has_box = right.has_box = 1;
    left.edges[2] = 0.5; /* left, top, right, bottom: all of the picture until now */
    right.edges[0] = 0.5;
    const MosRegion *regions[] = {&left, &right};

    MosRequest request;
    mos_request_init(&request, sizeof request);
    request.prompt = "a photo of a cat and a dog in the snow";
    request.seed = 2;
    request.width = request.height = 64;
    request.steps = 2;
    request.regions = regions;
    request.region_count = 2;
    request.watch = tell;

    MosPictures *pictures = NULL;
    int code = 0;
    if (mos_generate(model, &request, &pictures) != MOS_OK ||
        mos_pictures_save(pictures, 0, output) != MOS_OK) {
        code = failed();
    } else {
        for (size_t i = 0; i < mos_pictures_warning_count(pictures); i++)
            fprintf(stderr, "warning: %s\n", mos_pictures_warning(pictures, i));
        const unsigned char *rgb = mos_pictures_rgb(pictures, 0);
        printf("%s: %zux%zu, the first pixel is %d %d %d\n", output, mos_pictures_width(pictures),
               mos_pictures_height(pictures), rgb[0], rgb[1], rgb[2]);
    }
    mos_pictures_free(pictures);
    mos_model_free(model);
    return code;
}
