/* What a program can do wrong, and how calls end: run by tools/test-c.sh under ASan. */
#include <math.h>
#include <mixofshow.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int checks;

/* Also where NDEBUG is set. */
#define CHECK(what)                                                                                \
    do {                                                                                           \
        checks++;                                                                                  \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #what, mos_last_error());       \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)
#define SAYS(words) CHECK(strstr(mos_last_error(), words) != NULL)

struct Seen {
    MosModel *model;
    int calls;
    int stop_after;
    MosStatus inner;
};

static int watch(void *user, const char *stage, size_t done, size_t of) {
    struct Seen *seen = user;
    CHECK(stage[0] != 0 && done <= of);
    if (seen->calls++ == 0 && seen->model) {
        /* The model is at work in this thread. */
        MosRequest request;
        mos_request_init(&request, sizeof request);
        request.prompt = "a dog";
        MosPictures *pictures;
        seen->inner = mos_generate(seen->model, &request, &pictures);
        CHECK(pictures == NULL);
        SAYS("at work in this thread");
    }
    return seen->calls > seen->stop_after;
}

static int stop_update(void *user, const MosUpdate *at) {
    CHECK(at->size == sizeof *at && at->of == 4);
    *(uint64_t *)user = at->done;
    return at->done >= 2;
}

int main(int count, char **arguments) {
    CHECK(count == 2);
    CHECK(strlen(mos_version()) >= 5 && mos_last_error()[0] == 0);

    /* NULL, everywhere. */
    mos_model_free(NULL), mos_concept_free(NULL), mos_pictures_free(NULL);
    mos_taught_free(NULL), mos_fused_free(NULL);
    CHECK(mos_model_load(NULL, NULL) == MOS_ERROR);
    SAYS("NULL");
    CHECK(mos_request_init(NULL, sizeof(MosRequest)) == MOS_ERROR);
    CHECK(mos_model_device(NULL) == NULL && mos_model_width(NULL) == 0);
    CHECK(mos_concept_name(NULL) == NULL && mos_concept_word(NULL, 0) == NULL);
    CHECK(mos_pictures_rgb(NULL, 0) == NULL && mos_pictures_save(NULL, 0, "a") == MOS_ERROR);
    CHECK(mos_train(NULL, NULL) == MOS_ERROR && mos_fuse(NULL, NULL) == MOS_ERROR);
    MosPictures *pictures = (MosPictures *)1;
    CHECK(mos_generate(NULL, NULL, &pictures) == MOS_ERROR && pictures == NULL);
    SAYS("model is NULL");

    /* Names that are wrong come back in the message, and not UTF-8 is refused. */
    MosLoad load;
    MosModel *model;
    CHECK(mos_load_init(&load, sizeof load) == MOS_OK && mos_last_error()[0] == 0);
    load.model = "/none/such.safetensors";
    CHECK(mos_model_load(&load, &model) == MOS_ERROR && model == NULL);
    SAYS("/none/such.safetensors");
    load.model = "\xff";
    CHECK(mos_model_load(&load, &model) == MOS_ERROR);
    SAYS("UTF-8");
    load.model = NULL;
    load.precision = "f7";
    CHECK(mos_model_load(&load, &model) == MOS_ERROR);
    SAYS("f7");
    load.precision = NULL;
    load.size = 3;
    CHECK(mos_model_load(&load, &model) == MOS_ERROR);
    SAYS("sizeof(MosLoad)");
    load.size = sizeof load;
    load.device = "cpu";
    CHECK(mos_model_load(&load, &model) == MOS_OK);
    CHECK(mos_model_width(model) == 128 && mos_model_height(model) == 128);

    /* A program of an earlier header: its struct ends before the last fields. */
    MosRequest request;
    CHECK(mos_request_init(&request, sizeof request) == MOS_OK);
    CHECK(request.steps == 25 && request.batch == 1 && request.guidance != request.guidance);
    request.prompt = "a cat";
    request.width = request.height = 64;
    request.steps = 2;
    request.size = (size_t)((char *)&request.watch - (char *)&request);
    request.watch = (MosWatch)(uintptr_t)1;
    CHECK(mos_generate(model, &request, &pictures) == MOS_OK);
    CHECK(mos_pictures_count(pictures) == 1 && mos_pictures_width(pictures) == 64);
    CHECK(mos_pictures_rgb(pictures, 1) == NULL);
    SAYS("picture 1: there are 1");
    CHECK(mos_pictures_save(pictures, 0, "/none/a.png") == MOS_ERROR);
    SAYS("/none/a.png");
    unsigned char first[12];
    memcpy(first, mos_pictures_rgb(pictures, 0), sizeof first);
    mos_pictures_free(pictures);
    /* And one of a later header, whose own field is set. */
    struct {
        MosRequest request;
        size_t later;
    } newer;
    CHECK(mos_request_init(&newer.request, sizeof newer) == MOS_OK && newer.later == 0);
    newer.request.prompt = "a cat";
    newer.request.width = newer.request.height = 64;
    newer.request.steps = 2;
    newer.later = 1;
    CHECK(mos_generate(model, &newer.request, &pictures) == MOS_ERROR);
    SAYS("later library");
    newer.later = 0;
    CHECK(mos_generate(model, &newer.request, &pictures) == MOS_OK);
    CHECK(memcmp(first, mos_pictures_rgb(pictures, 0), sizeof first) == 0);
    mos_pictures_free(pictures);

    /* Callbacks: the end of a call, and a call within a call. */
    request.size = sizeof request;
    struct Seen seen = {model, 0, 1, MOS_OK};
    request.watch = watch;
    request.user = &seen;
    CHECK(mos_generate(model, &request, &pictures) == MOS_CANCELLED && pictures == NULL);
    CHECK(seen.inner == MOS_ERROR && seen.calls == 2);
    struct Seen whole = {NULL, 0, 1000, MOS_OK};
    request.user = &whole;
    CHECK(mos_generate(model, &request, &pictures) == MOS_OK && whole.calls > 3);
    mos_pictures_free(pictures);

    /* Lists and regions. */
    request.watch = NULL;
    request.region_count = 1;
    CHECK(mos_generate(model, &request, &pictures) == MOS_ERROR);
    SAYS("regions: NULL");
    MosRegion region;
    CHECK(mos_region_init(&region, sizeof region) == MOS_OK && region.weight == 1.0);
    const MosRegion *regions[] = {&region};
    const double corners[] = {0, 0, 1, 0, 0, 1};
    request.regions = regions;
    region.prompt = "a dog";
    region.has_box = 1;
    region.polygon = corners;
    region.corners = 3;
    CHECK(mos_generate(model, &request, &pictures) == MOS_ERROR);
    SAYS("more than one of box, polygon and mask");
    region.has_box = 0;
    const char *names[] = {"nobody"};
    const float factors[] = {0.5f};
    region.concepts = names;
    region.concept_factors = factors;
    region.concept_count = 1;
    CHECK(mos_generate(model, &request, &pictures) == MOS_ERROR);
    SAYS("nobody");
    region.concept_count = 0;
    CHECK(mos_generate(model, &request, &pictures) == MOS_OK);
    mos_pictures_free(pictures);
    request.region_count = 0;
    request.sampler = "magic";
    CHECK(mos_generate(model, &request, &pictures) == MOS_ERROR);
    SAYS("magic");
    mos_model_free(model);

    /* Teaching: ended by its callback, and gone on with. */
    char json[4096];
    snprintf(json, sizeof json,
             "{\"pictures\": \"%s\", \"words\": \"<e1> <e2>\", \"class_word\": \"man\", "
             "\"output\": \"edges.safetensors\", \"size\": \"64x64\", \"steps\": 4, \"batch\": 1, "
             "\"accumulate\": 1, \"sheet_every\": 0}",
             arguments[1]);
    MosTraining training;
    MosTaught *taught;
    uint64_t done = 0;
    CHECK(mos_training_init(&training, sizeof training) == MOS_OK);
    training.json = "{\"stepz\": 1}";
    CHECK(mos_train(&training, &taught) == MOS_ERROR);
    SAYS("stepz");
    training.json = json;
    training.device = "cpu";
    training.begin = 7;
    CHECK(mos_train(&training, &taught) == MOS_ERROR);
    SAYS("begin is 7");
    training.begin = MOS_BEGIN_NEW;
    training.on_update = stop_update;
    training.user = &done;
    CHECK(mos_train(&training, &taught) == MOS_CANCELLED && taught == NULL && done == 2);
    training.begin = MOS_BEGIN_RESUME;
    training.on_update = NULL;
    CHECK(mos_train(&training, &taught) == MOS_OK);
    CHECK(mos_taught_updates(taught) == 2 && mos_taught_sheet(taught) == NULL);
    MosConcept *concept;
    CHECK(mos_concept_read(mos_taught_path(taught), &concept) == MOS_OK);
    CHECK(mos_concept_word_count(concept) == 2);
    CHECK(strcmp(mos_concept_word(concept, 1), "<e2>") == 0);
    CHECK(mos_concept_word(concept, 2) == NULL);
    mos_taught_free(taught);

    /* Fusing without anything. */
    MosFusion fusion;
    MosFused *fused;
    CHECK(mos_fusion_init(&fusion, sizeof fusion) == MOS_OK && fusion.keep_count == -1);
    CHECK(mos_fuse(&fusion, &fused) == MOS_ERROR && fused == NULL);
    SAYS("output is NULL");
    fusion.output = "edges";
    fusion.solver = "guess";
    CHECK(mos_fuse(&fusion, &fused) == MOS_ERROR);
    SAYS("guess");
    fusion.solver = "average";
    CHECK(fusion.scenes == -1 && isnan(fusion.scene_strength) && fusion.distillation_rank == 0);
    fusion.scenes = 2;
    CHECK(mos_fuse(&fusion, &fused) == MOS_ERROR);
    SAYS("scenes is of the distillation, which is off: distillation is 0");
    fusion.solver = NULL;
    fusion.distillation_rank = 2000;
    CHECK(mos_fuse(&fusion, &fused) == MOS_ERROR);
    SAYS("distillation_rank is 2000: expected a whole number from 1 to 1024");
    fusion.distillation_rank = 8;
    fusion.scene_strength = -1;
    CHECK(mos_fuse(&fusion, &fused) == MOS_ERROR);
    SAYS("scene_strength is -1: expected a number above 0");
    fusion.scene_strength = 2;
    fusion.scenes = 0;
    CHECK(mos_fuse(&fusion, &fused) == MOS_ERROR);
    SAYS("scenes is 0");
    fusion.scene_strength = NAN;
    fusion.scenes = 1;
    CHECK(fusion.one_prompt == -1);
    fusion.one_prompt = 2;
    CHECK(mos_fuse(&fusion, &fused) == MOS_ERROR);
    SAYS("one_prompt is 2");
    mos_concept_free(concept);
    printf("%d checks\n", checks);
    return 0;
}
