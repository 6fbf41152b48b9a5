/*
 * Mix-of-Show for C and C++: teach Stable Diffusion concepts, fuse them, place each in its region.
 *
 * Calls that can fail return a MosStatus; mos_last_error() then says what was wrong, in the words
 * of the program `mos`. Strings are UTF-8 and end with 0; those that calls return belong to the
 * object that was asked, and stand as long as it does. What a call made is given back by its
 * mos_..._free, which takes NULL too.
 *
 * Structs that a program fills in are begun by their mos_..._init, which sets the size and the
 * usual values: programs that were built for an earlier header go on working with a later library.
 *
 * Objects may be used by several threads; calls on one model wait for each other. Callbacks come in
 * the thread of the call that they belong to. They end it by returning anything but 0, and must not
 * throw.
 */


#ifndef MIXOFSHOW_H
#define MIXOFSHOW_H

/* Made by bindings/c/header. */

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// Begin a run; refused where one of that name is there already.
#define MOS_BEGIN_NEW 0

// Go on where it was saved last, to the same bytes as without a break.
#define MOS_BEGIN_RESUME 1

// Begin anew, and replace what is there.
#define MOS_BEGIN_AGAIN 2

// What a call came to.
typedef enum MosStatus {
  // It is done.
  MOS_OK = 0,
  // It failed: mos_last_error() says why.
  MOS_ERROR = 1,
  // Its callback ended it. Nothing is half written, and what was saved goes on later.
  MOS_CANCELLED = 2,
  // A fault of the library itself, which was caught. Free the objects of the call, and no more.
  MOS_PANIC = 3,
} MosStatus;

// A concept or a LoRA.
typedef struct MosConcept MosConcept;

// A fused model.
typedef struct MosFused MosFused;

// Latents of one or more pictures: numbers, batch by channels by height by width.
typedef struct MosLatents MosLatents;

// A model, loaded. Calls on it wait for each other.
typedef struct MosModel MosModel;

// Pictures that a model made.
typedef struct MosPictures MosPictures;

// What teaching came to.
typedef struct MosTaught MosTaught;

// A concept or a LoRA in use: begun by mos_concept_use_init.
typedef struct MosConceptUse {
  // Of this struct, in bytes.
  size_t size;
  // What is used.
  const struct MosConcept *concept;
  // Factor of its LoRA; 1 is as it was taught.
  float scale;
  // That of the text encoder's part; NAN: the same.
  float text_scale;
} MosConceptUse;

// A ControlNet or a T2I-Adapter that steers a picture: begun by mos_control_init.
typedef struct MosControl {
  // Of this struct, in bytes.
  size_t size;
  // Its folder or file, or the name of one inside of the model or in the folder of models.
  const char *network;
  // A picture file: what it follows, or anything from which `make` draws it.
  const char *image;
  // "canny" or "outline"; NULL: the image as it is.
  const char *make;
  // Factor of what it adds.
  float weight;
  // It steers from this part of the steps to `end`, 0 to 1.
  double start;
  // Where it ends.
  double end;
  // As messages name it; NULL: the network's file name.
  const char *name;
} MosControl;

// A concept to be fused: begun by mos_member_init.
typedef struct MosMember {
  // Of this struct, in bytes.
  size_t size;
  // What is fused.
  const struct MosConcept *concept;
  // Factor of its LoRA; 1 is as it was taught.
  float scale;
  // That of the text encoder's part; NAN: the same.
  float text_scale;
  // What calls up a LoRA without words of its own; NULL: its words.
  const char *prompt;
} MosMember;

// Told of the stage, of the parts of it that are done, and of how many there are. Anything but 0
// ends the call with MOS_CANCELLED.
typedef int (*MosWatch)(void *user, const char *stage, size_t done, size_t of);

// Concepts to be fused into one model: begun by mos_fusion_init. Options are those of `mos fuse`.
typedef struct MosFusion {
  // Of this struct, in bytes.
  size_t size;
  // What is fused.
  const struct MosMember *const *members;
  // How many there are.
  size_t member_count;
  // The folder of the fused model.
  const char *output;
  // Replace it if it is there and was fused by this library, if not 0.
  int32_t replace;
  // The base model, as in MosLoad.
  const char *model;
  // As in MosLoad.
  const char *device;
  // As in MosLoad.
  const char *precision;
  // A folder in which statistics are kept, and those that are there used; NULL: none.
  const char *statistics;
  // "exact", "lbfgs", "average", "sum", "ties" or "dare"; NULL: exact.
  const char *solver;
  // Sampling steps of the pictures that statistics are taken of; 0: the solver's usual ones.
  size_t steps;
  // Their guidance; NAN: the solver's usual one.
  float guidance;
  // Their width in pixels; 0: the model's.
  size_t width;
  // Their height in pixels; 0: the model's.
  size_t height;
  // Pictures for each prompt; 0: as many as is usual.
  uint64_t samples;
  // Their seed.
  uint64_t seed;
  // Prompts with {} for a concept's words; none: the built-in ones.
  const char *const *prompts;
  // How many there are.
  size_t prompt_count;
  // Prompts on which the model should not change.
  const char *const *keep;
  // How many there are, 0 for none; -1: the built-in ones.
  ptrdiff_t keep_count;
  // Pictures whose predictions the fused UNet learns; -1: the solver's usual number.
  int64_t distillation;
  // Number a word that two concepts have, instead of refusing it, if not 0.
  int32_t rename;
  // Told how far it is; NULL: nobody.
  MosWatch watch;
  // Given to it.
  void *user;
  // The part of each change's numbers that "ties" and "dare" keep; NAN: what is usual.
  double density;
  // Rank of the updates that learn the predictions; 0: 16 for each member and 4 more, 64 at most.
  size_t distillation_rank;
  // Pictures of each prompt of each scene that are learnt too, two and three members in regions;
  // 0: none; -1: the usual number.
  int64_t scenes;
  // Strength of a member's own file in its region of a scene, times its own; NAN: what is usual.
  float scene_strength;
  // Learning rate of the predictions; NAN: what is usual.
  float distillation_rate;
  // Of so many pictures of each prompt of each scene, what is predicted in regions is learnt with
  // one prompt for the whole picture too; 0: none; -1: the usual number.
  int64_t one_prompt;
} MosFusion;

// How a model is loaded: begun by mos_load_init.
typedef struct MosLoad {
  // Of this struct, in bytes.
  size_t size;
  // A folder, a file, or a name in MOS_MODELS; NULL: the very small model that ships.
  const char *model;
  // "cpu", or a graphics adapter by its number or a part of its name; NULL: what MOS_ADAPTER
  // says, else the best.
  const char *device;
  // Of the weights: "as-stored", "f16", "f32", "q8_0", "q4_0"; NULL: as they are stored.
  const char *precision;
} MosLoad;

// A part of a picture with a prompt of its own: begun by mos_region_init. Without a box, polygon
// or mask it is all of the picture.
typedef struct MosRegion {
  // Of this struct, in bytes.
  size_t size;
  // For messages; NULL: its number.
  const char *name;
  // What holds there.
  const char *prompt;
  // NULL: the picture's.
  const char *negative;
  // Whether `edges` count.
  int32_t has_box;
  // Left, top, right, bottom: fractions of the picture, or pixels.
  double edges[4];
  // Corners x, y, one after the other: fractions or pixels.
  const double *polygon;
  // How many corners there are.
  size_t corners;
  // A picture file, white inside.
  const char *mask;
  // Width of a fading edge.
  double soft;
  // Part of the mean where regions overlap.
  double weight;
  // Higher ones lie on top.
  int32_t order;
  // The picture's prompt's share inside.
  double base;
  // It holds from this part of the steps to `end`, 0 to 1.
  double start;
  // Where it ends.
  double end;
  // Names (or words) of concepts that act inside, each as strong as its factor says.
  const char *const *concepts;
  // A factor for each of them.
  const float *concept_factors;
  // How many there are.
  size_t concept_count;
} MosRegion;

// Pictures to be made: begun by mos_request_init. Options are those of `mos generate`.
typedef struct MosRequest {
  // Of this struct, in bytes.
  size_t size;
  // What is to be seen; with regions, what holds between them.
  const char *prompt;
  // What guidance leads away from.
  const char *negative;
  // Picture i has seed + i, and is the same as alone.
  uint64_t seed;
  // In pixels; 0: the initial picture's, else the model's.
  size_t width;
  // In pixels; 0 as for the width.
  size_t height;
  // Sampling steps.
  size_t steps;
  // Scale of guidance; NAN: what suits the model.
  float guidance;
  // Pictures, 1 to 1024.
  size_t batch;
  // Such as "euler" or "dpmpp-2m"; NULL: the one that the model's files name.
  const char *sampler;
  // How steps are spread over the noise, such as "karras"; NULL: as the model's files say.
  const char *schedule;
  // The sampler's share of fresh noise, 0 to 1; NAN: its usual one.
  double eta;
  // Whose random numbers: "torch" or "philox"; NULL: torch's.
  const char *rng;
  // How many of the text encoder's last layers are left out.
  size_t clip_skip;
  // Prompts of any length, if not 0.
  int32_t long_prompt;
  // Brackets that weigh: "auto", "on" or "off"; NULL: auto.
  const char *prompt_syntax;
  // Concepts and LoRAs in use.
  const struct MosConceptUse *const *concepts;
  // How many there are.
  size_t concept_count;
  // Take concepts that were taught on another model too, if not 0.
  int32_t force_base;
  // Parts of the picture with prompts of their own.
  const struct MosRegion *const *regions;
  // How many there are.
  size_t region_count;
  // A file of regions, in place of those.
  const char *layout;
  // Keep self-attention from leaking between regions, if not 0.
  int32_t isolate;
  // A picture file to start from.
  const char *image;
  // How much of it is changed, above 0 to 1; NAN: 0.8.
  double strength;
  // A picture file, white where the image is painted anew.
  const char *mask;
  // Decode in parts of at most this many pixels squared; 0: as a whole where it fits.
  size_t tile;
  // Told how far it is; NULL: nobody.
  MosWatch watch;
  // Given to it.
  void *user;
  // Networks that steer the picture, all at once.
  const struct MosControl *const *controls;
  // How many there are.
  size_t control_count;
  // Standard normal numbers to start from in place of the seed's, batch by channels by height by
  // width of the latents; NULL: the seed's.
  const float *noise;
  // Batch, channels, height and width of the noise.
  size_t noise_shape[4];
  // A file of such noise, as `mos generate --latents` takes it.
  const char *noise_file;
  // How far the guided picture is brought back to the contrast of an unguided one, 0 to 1.
  float guidance_rescale;
  // Guidance acts from this part of the steps to `guidance_until`, 0 to 1.
  double guidance_from;
  // Where it ends.
  double guidance_until;
  // The UNet's deep layers are run in every so many steps only.
  size_t cache;
  // Make a larger picture of the first, so many times as large along each side; 0 or 1: no.
  double hires_scale;
  // What enlarges it: "latent", "latent-nearest", "latent-nearest-exact", "latent-bicubic" or
  // "lanczos"; NULL: "latent".
  const char *hires_upscaler;
  // How much of the enlarged picture is changed, above 0 to 1; NAN: 0.7.
  double hires_strength;
  // Steps of its whole schedule; 0: as many as the first pass has.
  size_t hires_steps;
  // Bytes of the device's memory to stay within; 0: all of it.
  uint64_t memory;
} MosRequest;

// An update of the weights while a concept is taught.
typedef struct MosUpdate {
  // Of this struct, in bytes.
  size_t size;
  // Updates done.
  uint64_t done;
  // Of so many.
  uint64_t of;
  // The loss.
  float loss;
  // Mean norm of the words' embeddings.
  float norm;
} MosUpdate;

// Told of each update. Anything but 0 ends the call with MOS_CANCELLED; the run is saved.
typedef int (*MosOnUpdate)(void *user, const struct MosUpdate *update);

// A concept to be taught: begun by mos_training_init.
typedef struct MosTraining {
  // Of this struct, in bytes.
  size_t size;
  // A file of settings, as `mos train` takes it; NULL: none.
  const char *file;
  // Settings as a JSON object of the same keys, which come before those of the file; NULL: none.
  const char *json;
  // MOS_BEGIN_NEW, MOS_BEGIN_RESUME or MOS_BEGIN_AGAIN.
  int32_t begin;
  // As in MosLoad.
  const char *device;
  // Told how far it is; NULL: nobody.
  MosWatch watch;
  // Told of each update; NULL: nobody.
  MosOnUpdate on_update;
  // Given to both.
  void *user;
} MosTraining;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library, such as "0.1.0".
const char *mos_version(void);

// Fills in the usual values of a struct of `size` bytes.
enum MosStatus mos_concept_use_init(struct MosConceptUse *to, size_t size);

// Reads a concept or a LoRA of any program: a file, or a folder of PEFT or diffusers.
enum MosStatus mos_concept_read(const char *path, struct MosConcept **concept);

// Gives a concept back.
void mos_concept_free(struct MosConcept *concept);

// Its name, as regions may name it.
const char *mos_concept_name(const struct MosConcept *concept);

// How many words stand for it in prompts; a LoRA has none.
size_t mos_concept_word_count(const struct MosConcept *concept);

// One of its words, in the order in which they stand in a prompt.
const char *mos_concept_word(const struct MosConcept *concept, size_t number);

// How much was left out or guessed while it was read.
size_t mos_concept_note_count(const struct MosConcept *concept);

// One of these, in a sentence.
const char *mos_concept_note(const struct MosConcept *concept, size_t number);

// Fills in the usual values of a struct of `size` bytes.
enum MosStatus mos_control_init(struct MosControl *to, size_t size);

// Why the last call of this thread failed, in one line or more; empty if it did not. It stands
// until the next call of this thread.
const char *mos_last_error(void);

// Fills in the usual values of a struct of `size` bytes.
enum MosStatus mos_member_init(struct MosMember *to, size_t size);

// Fills in the usual values of a struct of `size` bytes.
enum MosStatus mos_fusion_init(struct MosFusion *to, size_t size);

// Fuses concepts, and writes the model: a folder for mos_model_load. One that was ended goes on
// where it was when it is called again.
enum MosStatus mos_fuse(const struct MosFusion *fusion, struct MosFused **result);

// Gives the result back.
void mos_fused_free(struct MosFused *fused);

// The folder.
const char *mos_fused_path(const struct MosFused *fused);

// What went in and what was lost, as JSON.
const char *mos_fused_json(const struct MosFused *fused);

// The same as Markdown.
const char *mos_fused_markdown(const struct MosFused *fused);

// How much there is to tell.
size_t mos_fused_warning_count(const struct MosFused *fused);

// One of these, in a sentence.
const char *mos_fused_warning(const struct MosFused *fused, size_t number);

// The latents of a picture file, the mean of what they may be. `tile`: in parts of at most this
// many pixels squared; 0: as a whole where it fits.
enum MosStatus mos_model_encode(const struct MosModel *model,
                                const char *image,
                                size_t tile,
                                struct MosLatents **latents);

// The pictures of latents; `shape` has four numbers: batch, channels, height, width. They carry no
// settings.
enum MosStatus mos_model_decode(const struct MosModel *model,
                                const float *latents,
                                const size_t *shape,
                                size_t tile,
                                struct MosPictures **pictures);

// The numbers, batch by channels by height by width.
const float *mos_latents_values(const struct MosLatents *latents);

// Four numbers: batch, channels, height, width.
const size_t *mos_latents_shape(const struct MosLatents *latents);

// Gives latents back.
void mos_latents_free(struct MosLatents *latents);

// Fills in the usual values of a struct of `size` bytes.
enum MosStatus mos_load_init(struct MosLoad *to, size_t size);

// Opens a model and checks that it is whole; its weights go to the device when they are used.
// `load` may be NULL: all is as usual then.
enum MosStatus mos_model_load(const struct MosLoad *load, struct MosModel **model);

// Gives a model back. Nothing may be at work on it.
void mos_model_free(struct MosModel *model);

// The name of the device that it is on.
const char *mos_model_device(const struct MosModel *model);

// Width in pixels that it was trained at.
size_t mos_model_width(const struct MosModel *model);

// Height in pixels that it was trained at.
size_t mos_model_height(const struct MosModel *model);

// Makes pictures.
enum MosStatus mos_generate(const struct MosModel *model,
                            const struct MosRequest *request,
                            struct MosPictures **pictures);

// Gives pictures back.
void mos_pictures_free(struct MosPictures *pictures);

// How many there are.
size_t mos_pictures_count(const struct MosPictures *pictures);

// Pixels in a row, of each.
size_t mos_pictures_width(const struct MosPictures *pictures);

// Rows, of each.
size_t mos_pictures_height(const struct MosPictures *pictures);

// Red, green and blue of each pixel, row by row: 3 * width * height bytes.
const uint8_t *mos_pictures_rgb(const struct MosPictures *pictures, size_t number);

// The final latents of all pictures, batch by channels by height by width. With `shape`, four
// numbers are written there, in this order; NULL: nothing is.
const float *mos_pictures_latents(const struct MosPictures *pictures, size_t *shape);

// The seed of a picture; 0 of those that were only decoded.
uint64_t mos_pictures_seed(const struct MosPictures *pictures, size_t number);

// Writes a picture as PNG with its settings: the same bytes as `mos generate`, which makes it
// again with --like.
enum MosStatus mos_pictures_save(const struct MosPictures *pictures,
                                 size_t number,
                                 const char *path);

// How much there is to tell: what was cut from prompts, what stands in for what.
size_t mos_pictures_warning_count(const struct MosPictures *pictures);

// One of these, in a sentence.
const char *mos_pictures_warning(const struct MosPictures *pictures, size_t number);

// Fills in the usual values of a struct of `size` bytes.
enum MosStatus mos_region_init(struct MosRegion *to, size_t size);

// Fills in the usual values of a struct of `size` bytes.
enum MosStatus mos_request_init(struct MosRequest *to, size_t size);

// Fills in the usual values of a struct of `size` bytes.
enum MosStatus mos_training_init(struct MosTraining *to, size_t size);

// Teaches a concept, and writes its file.
enum MosStatus mos_train(const struct MosTraining *training, struct MosTaught **result);

// Gives the result back.
void mos_taught_free(struct MosTaught *taught);

// The concept's file, for mos_concept_read.
const char *mos_taught_path(const struct MosTaught *taught);

// The picture of the loss.
const char *mos_taught_curve(const struct MosTaught *taught);

// Pictures by the concept; NULL where the settings want none.
const char *mos_taught_sheet(const struct MosTaught *taught);

// Mean loss of the first tenth of the run.
float mos_taught_first_loss(const struct MosTaught *taught);

// Mean loss of the last tenth.
float mos_taught_last_loss(const struct MosTaught *taught);

// Mean norm of the words' embeddings.
float mos_taught_norm(const struct MosTaught *taught);

// Updates that this call made.
uint64_t mos_taught_updates(const struct MosTaught *taught);

// How much there is to tell.
size_t mos_taught_warning_count(const struct MosTaught *taught);

// One of these, in a sentence.
const char *mos_taught_warning(const struct MosTaught *taught, size_t number);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MIXOFSHOW_H */
