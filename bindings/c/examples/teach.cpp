// Two concepts are taught, fused into one model, and placed in one picture each in its half.
//     c++ -std=c++17 teach.cpp $(pkg-config --cflags --libs mixofshow) -o teach
//     ./teach models/concepts 320
#include <mixofshow.h>

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

// What the library made is given back when its owner goes.
template <auto free_it> struct Give {
    template <class T> void operator()(T *object) const { free_it(object); }
};
using Model = std::unique_ptr<MosModel, Give<mos_model_free>>;
using Concept = std::unique_ptr<MosConcept, Give<mos_concept_free>>;
using Pictures = std::unique_ptr<MosPictures, Give<mos_pictures_free>>;
using Taught = std::unique_ptr<MosTaught, Give<mos_taught_free>>;
using Fused = std::unique_ptr<MosFused, Give<mos_fused_free>>;

void check(MosStatus status) {
    if (status != MOS_OK) throw std::runtime_error(mos_last_error());
}

int on_update(void *, const MosUpdate *at) {
    if (at->done % 80 == 0)
        std::printf("%llu of %llu, loss %.3f\n", static_cast<unsigned long long>(at->done),
                    static_cast<unsigned long long>(at->of), at->loss);
    return 0;
}

Concept teach(const std::string &pictures, const std::string &name, const char *of,
              const std::string &steps) {
    // Keys as in the settings of `mos train`.
    const std::string json = R"({"pictures": ")" + pictures + "/" + name + R"(", "words": "<)" +
                             name + "1> <" + name + R"(2>", "class_word": ")" + of +
                             R"(", "output": ")" + name + R"(.safetensors", "sheet_every": 0,
                             "steps": )" + steps + "}";
    MosTraining training;
    mos_training_init(&training, sizeof training);
    training.json = json.c_str();
    training.begin = MOS_BEGIN_AGAIN;
    training.on_update = on_update;
    MosTaught *made;
    check(mos_train(&training, &made));
    const Taught taught(made);
    std::printf("%s: loss %.3f at first, %.3f at last\n", mos_taught_path(taught.get()),
                mos_taught_first_loss(taught.get()), mos_taught_last_loss(taught.get()));
    MosConcept *read;
    check(mos_concept_read(mos_taught_path(taught.get()), &read));
    return Concept(read);
}

Model load(const char *name) {
    MosLoad load;
    mos_load_init(&load, sizeof load);
    load.model = name;
    MosModel *model;
    check(mos_model_load(&load, &model));
    return Model(model);
}

std::string words(const Concept &concept_) {
    std::string all;
    for (size_t i = 0; i < mos_concept_word_count(concept_.get()); i++)
        all += (i ? " " : "") + std::string(mos_concept_word(concept_.get(), i));
    return all;
}

// Both in one picture: the first on the left, the second on the right. Concepts that are used act
// each in its own region.
void place(const Model &model, const std::vector<const Concept *> &both, bool used,
           const char *file) {
    MosRegion regions[2];
    std::string prompts[2];
    const MosRegion *all[2];
    MosConceptUse uses[2];
    const MosConceptUse *in_use[2];
    for (int i = 0; i < 2; i++) {
        mos_region_init(&regions[i], sizeof regions[i]);
        prompts[i] = "a photo of a " + words(*both[i]);
        regions[i].prompt = prompts[i].c_str();
        regions[i].has_box = 1;
        regions[i].edges[i == 0 ? 2 : 0] = 0.5;
        all[i] = &regions[i];
        mos_concept_use_init(&uses[i], sizeof uses[i]);
        uses[i].concept = both[i]->get();
        in_use[i] = &uses[i];
    }
    MosRequest request;
    mos_request_init(&request, sizeof request);
    request.prompt = "a photo of two in the snow";
    request.seed = 3;
    request.steps = 10;
    request.regions = all;
    request.region_count = 2;
    request.concepts = in_use;
    request.concept_count = used ? 2 : 0;
    MosPictures *made;
    check(mos_generate(model.get(), &request, &made));
    const Pictures pictures(made);
    check(mos_pictures_save(pictures.get(), 0, file));
    std::printf("%s\n", file);
}

} // namespace

int main(int count, char **arguments) try {
    const std::string pictures = count > 1 ? arguments[1] : "models/concepts";
    const std::string steps = count > 2 ? arguments[2] : "320";
    const Concept zorp = teach(pictures, "zorp", "man", steps);
    const Concept luma = teach(pictures, "luma", "woman", steps);
    place(load(nullptr), {&zorp, &luma}, true, "placed.png");

    MosMember members[2];
    const MosMember *all[2] = {&members[0], &members[1]};
    for (int i = 0; i < 2; i++) {
        mos_member_init(&members[i], sizeof members[i]);
        members[i].concept = (i == 0 ? zorp : luma).get();
    }
    MosFusion fusion;
    mos_fusion_init(&fusion, sizeof fusion);
    fusion.members = all;
    fusion.member_count = 2;
    fusion.output = "both";
    fusion.replace = 1;
    if (count > 3) { // a quick one, for tests
        fusion.steps = 1;
        fusion.keep_count = 0;
        fusion.distillation = 0;
    }
    MosFused *made;
    check(mos_fuse(&fusion, &made));
    const Fused fused(made);
    std::printf("%s: a report of %zu bytes\n", mos_fused_path(fused.get()),
                std::string(mos_fused_markdown(fused.get())).size());
    place(load(mos_fused_path(fused.get())), {&zorp, &luma}, false, "fused.png");
    return 0;
} catch (const std::exception &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
}
