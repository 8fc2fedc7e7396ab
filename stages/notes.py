"""What a run's report says of the stages, their pictures and their numbers."""

from pmv.pipeline.notes import Notes, Pair, StageNotes, Strip

_PHOTO = "00_prepare/original.png"
_WITH_EDITS = "04_edit/image.png"

NOTES = Notes(
    to_turn="pmv report RUN writes this page with the head in 3D, to be turned by hand; pmv export takes it elsewhere.",
    given=(_WITH_EDITS, _PHOTO),
    result=(
        *("09_retune/input_view.png", "08_tune/input_view.png", "03_coarse/input_render.png", "02_latent/pivot.png"),
        "01_seed/input_view.png",
    ),
    headline=(
        (
            "tuned_psnr",
            "the photo's own view",
            "dB",
            "the finished head against the photo; from about 30 on hard to tell",
        ),
        ("edit_psnr", "what was painted", "dB", "the finished head against the edit alone"),
        ("views_psnr", "pseudo-views", "dB", "the finished head where the photo's pixels were carried to other views"),
        (
            "consistency_psnr",
            "across views",
            "dB",
            "the photo painted on the finished head's surface, against its renders 20° beside the photo's view",
        ),
    ),
    stages={
        "prepare": StageNotes(
            "The photo becomes the picture that the generator is asked for: cropped as its training pictures were, its "
            "foreground and its camera found.",
            {
                "original": "the aligned picture, on the generator's background",
                "foreground": "its foreground, white = head",
                "foreground_on_photo": "the foreground over the picture: is any of the head left out?",
                "camera_mean_head": "the generator's mean head from the camera that was found, half transparent over "
                "the picture: eyes, nose and mouth should meet",
                "valid": "black where the crop left the photo and its border was mirrored",
                "faces": "the faces that were found, numbered by size; --face chooses another",
            },
            numbers={"camera_confidence": "1 = the camera was given; below .5 it is uncertain, and --camera helps"},
        ),
        "seed": StageNotes(
            "A head in one forward pass, from which the later stages start; none without encoders (seed.kind).",
            {
                "input_view": "the encoded head from the photo's view",
                "views": "and from 60° and 30° to either side, the front and the back",
                "surface": "the surface that the encoder sees in the photo, in colour: yellow is near",
                "surface_trust": "how far it is believed against the coarse one: white is all",
                "seen_texels": "the texels of the three planes that the photo shows",
            },
            pairs=(Pair(_PHOTO, "01_seed/input_view.png", "the picture, and the encoded head", difference=True),),
            depth=("surface",),
        ),
        "latent": StageNotes(
            "The nearest head that the pretrained generator knows, the pivot, and the camera refined with it. Its "
            "likeness is rough; what matters is its shape.",
            {
                "pivot": "the pivot",
                "difference_mask": "what the generator cannot draw: out of its distribution",
                "out_of_distribution": "the same, marked on the picture; --ood-mask overrules it",
            },
            pairs=(Pair(_PHOTO, "02_latent/pivot.png", "the picture, and the pivot", difference=True),),
            numbers={"out_of_distribution": "part of the head that the generator cannot draw"},
        ),
        "coarse": StageNotes(
            "The generator is tuned a little to the picture, while its shape is held. It says what lies where in all "
            "pseudo-views.",
            {
                "input_render": "the coarsely tuned head from the photo's view",
                "input_depth": "its depth there, in colour: yellow is near",
                "views": "all pseudo-views, as the coarse generator draws them",
            },
            pairs=(Pair(_PHOTO, "03_coarse/input_render.png", "the picture, and the coarse head", difference=True),),
            depth=("input_depth",),
        ),
        "edit": StageNotes(
            "What was painted is laid on the picture, after the shape was found, so that it cannot bend it.",
            {"image": "the picture with all edits", "edit_mask": "white where it is edited"},
            pairs=(Pair(_PHOTO, _WITH_EDITS, "without and with the edits"),),
            numbers={"edited": "part of the head that is edited"},
        ),
        "visibility": StageNotes(
            "Which pixels of each pseudo-view show a place that the photo shows as well.",
            {
                "visible": "white where the photo shows what the pseudo-view sees",
                "edited_visible": "the same for what was painted, up to nearer its border",
                "trusted_texels": "the photo's pixels that may be carried: none at its outline and at edges of depth",
            },
        ),
        "warp": StageNotes(
            "The photo's own pixels, carried along the surface to the pseudo-views.",
            {"warped": "the photo's pixels there", "warped_edit": "where what was painted comes to lie"},
        ),
        "inpaint": StageNotes(
            "What the photo cannot show of a pseudo-view is filled with the coarse generator's render.",
            {
                "pseudo_views": "the completed pseudo-views",
                "edited_views": "the same with the edits",
                "fill": "what fills them, where the seed has a head for it",
                "blend_weights": "white = the photo's pixels, black = the generator's",
            },
        ),
        "tune": StageNotes(
            "A fresh generator is tuned to the picture and all pseudo-views at once, with the pivot fixed.",
            {"input_view": "the tuned head from the photo's view", "views": "and from the pseudo-views"},
            pairs=(Pair(_PHOTO, "08_tune/input_view.png", "the picture, and the tuned head", difference=True),),
        ),
        "retune": StageNotes(
            "What was painted is put into the tuned head; all else is held. Without an edit nothing happens here.",
            {
                "input_view": "the head with the edits from the photo's view",
                "views": "and from the pseudo-views",
                "held_views": "views in which nothing may change",
            },
            pairs=(
                Pair(_WITH_EDITS, "09_retune/input_view.png", "the edited picture, and the head", difference=True),
                Pair("08_tune/input_view.png", "09_retune/input_view.png", "the head before and with the edits"),
            ),
        ),
        "evaluate": StageNotes(
            "The finished head is judged, filmed and written as a mesh.",
            {
                "contact_sheet": "what went in, what every stage made of it, what came out",
                "turntable": "the finished head, turned",
            },
            numbers={
                "pivot_psnr": "dB, the pivot against the photo's head",
                "coarse_psnr": "dB, the coarse head against it",
                "tuned_psnr": "dB, the finished head against it",
                "*_ssim": "structural similarity, 1 = the same",
                "edit_psnr": "dB, inside what was painted",
                "views_psnr": "dB, against the photo's pixels in the pseudo-views",
                "consistency_psnr": "dB, the photo on the finished surface against renders beside its view",
                "consistency_covisible": "part of the surface that could be compared so",
                "pivot_*": "perceptual distance, 0 = the same",
                "coarse_*": "perceptual distance, 0 = the same",
                "tuned_*": "perceptual distance, 0 = the same",
            },
        ),
    },
    strips=(
        Strip(
            "tune",
            "Each pseudo-view on its way. Red: what the photo does not show.",
            {
                "carried pixels": ("06_warp/warped.png",),
                "completed": ("07_inpaint/edited_views.png", "07_inpaint/pseudo_views.png"),
                "tuned": ("09_retune/views.png", "08_tune/views.png"),
            },
            {"coarse, seen": (("03_coarse/views.png",), ("05_visibility/visible.png",))},
        ),
    ),
)
