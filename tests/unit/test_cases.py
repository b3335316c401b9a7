"""Which test holds which kind of input that went wrong in the field, and that none of these tests has gone away.

The numbers are those of the project's list of cases; a kind has several members, and so several tests.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

CASES: dict[str, tuple[str, ...]] = {
    "1 several objects without a list": ("unit/test_answers_lenient.py::test_several_objects_without_a_list",),
    "2 lists that are cut off, entries that cannot be used": (
        "unit/test_answers_lenient.py::test_a_list_that_is_cut_off_keeps_its_whole_objects",
        "unit/test_answers_lenient.py::test_one_entry_that_cannot_be_used_leaves_the_others",
        "unit/test_answers_lenient.py::test_a_box_outside_the_image_leaves_the_others",
    ),
    "3 shapes that published models write": (
        "unit/test_answers_lenient.py::test_a_broken_box_is_read",
        "unit/test_answers_lenient.py::test_broken_points_are_read",
        "unit/test_answers_lenient.py::test_several_boxes_in_broken_text",
        "unit/test_answers_lenient.py::test_nothing_there_in_other_spellings",
        "unit/test_answers_lenient.py::test_percentages_are_relative_to_the_image",
        "unit/test_answers_lenient.py::test_the_last_complete_answer_counts",
        "unit/test_answers_lenient.py::test_an_answer_within_the_thinking",
    ),
    "4 native forms of families": (
        "unit/test_answers_native.py::test_native_answers_are_read",
        "unit/test_answers_native.py::test_native_statuses",
        "unit/test_answers_native.py::test_the_family_chooses_the_format_and_the_frame",
    ),
    "5 numbers in the wrong frame": ("unit/test_frame_hint.py::test_other_frames_are_noticed",),
    "6 seg-r1 without an outer list, seg-zero with a list too many": (
        "unit/test_answers_lenient.py::test_several_boxes_in_broken_text",
        "unit/test_answers_lenient.py::test_broken_points_are_read",
    ),
    "7 none in words": (
        "unit/test_answers_lenient.py::test_none_in_words_stays_a_failure_and_is_told_apart",
        "unit/test_answers_lenient.py::test_other_failures_do_not_say_none",
    ),
    "8 pictures of 10 to 16 bits, floats, pages": (
        "unit/test_images.py::test_deep_samples_are_scaled_by_what_the_file_holds",
        "unit/test_images.py::test_colours_of_16_bits_keep_their_order",
        "unit/test_images.py::test_floats_are_scaled",
        "unit/test_images.py::test_a_declared_white_is_taken",
        "unit/test_images.py::test_samples_whose_scale_cannot_be_told_are_refused",
        "unit/test_images.py::test_pages_are_a_choice_that_is_said_once",
        "unit/test_images.py::test_transparency_lies_over_white",
        "unit/test_images.py::test_formats_are_read_alike_by_path_and_by_bytes",
        "unit/test_images.py::test_a_huge_picture_gets_our_words_and_an_option",
        "unit/test_images.py::test_what_is_no_picture_is_named",
    ),
    "9 objects without a mask": (
        "unit/test_datasets_own.py::test_an_object_without_a_mask_is_never_nothing_there",
        "unit/test_datasets_own.py::test_painted_masks_that_are_marked_as_crowds",
        "unit/test_datasets_annotators.py::test_labelme_rectangles_as_truth",
        "unit/test_datasets_annotators.py::test_yolo_boxes_as_truth",
        "unit/test_datasets_annotators.py::test_label_studio_rectangles",
    ),
    "10 palettes, labels, colours and alpha as masks": (
        "unit/test_masks.py::test_every_way_to_store_a_mask_is_read",
        "unit/test_masks.py::test_colours_of_16_bits_are_labels_too",
        "unit/test_masks.py::test_what_is_no_mask_is_refused",
        "unit/test_datasets_own.py::test_byte_order_marks_are_read",
    ),
    "11 hostile numbers and sizes": (
        "unit/test_masks.py::test_hostile_segmentations_are_refused_before_they_are_drawn",
        "unit/test_masks.py::test_damaged_run_lengths_are_refused_by_name",
        "unit/test_datasets_own.py::test_sizes_that_contradict_the_image_are_refused_before_anything_is_drawn",
        "unit/test_datasets_annotators.py::test_a_file_of_pixels_in_a_labelme_mask_has_a_limit",
        "integration/test_fuzz_readers.py::test_a_few_hundred_damaged_files",
    ),
    "12 broken run lengths": (
        "unit/test_masks.py::test_damaged_run_lengths_are_refused_by_name",
        "unit/test_datasets_own.py::test_coco_masks_are_checked_when_the_set_is_loaded",
    ),
    "19 what annotators corrected": (
        "unit/test_datasets_annotators.py::test_labelme",
        "unit/test_datasets_annotators.py::test_yolo",
        "unit/test_datasets_annotators.py::test_label_studio",
        "unit/test_datasets_annotators.py::test_what_we_export_is_read_back_pixel_for_pixel",
        "e2e/test_corrected.py::test_labelme_in_three_commands",
        "e2e/test_corrected.py::test_coco",
        "e2e/test_corrected.py::test_yolo",
        "e2e/test_corrected.py::test_label_studio",
    ),
    "29 masks on stored pixels of turned photographs": (
        "unit/test_datasets_own.py::test_masks_on_stored_pixels_are_asked_for_and_named_by_the_check",
        "unit/test_images.py::test_every_orientation_is_turned_once",
    ),
    "37 colour profiles": ("unit/test_images.py::test_colour_profiles_become_srgb",),
    "20 processors named by other versions": (
        "integration/test_checkpoints_as_found.py::test_processors_named_by_other_versions_of_transformers",
    ),
    "21 an adapter whose base is elsewhere": (
        "integration/test_checkpoints_as_found.py::test_an_adapter_whose_base_is_elsewhere",
    ),
    "22 files that were not fetched": (
        "integration/test_checkpoints_as_found.py::test_files_that_git_lfs_did_not_fetch",
        "integration/test_checkpoints_as_found.py::test_shards_of_another_trainer",
    ),
    "23 a flat configuration": ("integration/test_checkpoints_as_found.py::test_a_flat_configuration_of_qwen2_5_vl",),
    "24 the answer as reasoning_content": (
        "integration/test_checkpoints_as_found.py::test_an_answer_that_a_server_took_for_reasoning",
    ),
    "36 the prompt of a published checkpoint": (
        "integration/test_checkpoints_as_found.py::test_the_prompt_of_a_published_checkpoint_needs_no_hub",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_case_is_held_by_tests_that_are_there(case: str) -> None:
    for held_by in CASES[case]:
        file, _, name = held_by.partition("::")
        functions = {
            node.name for node in ast.walk(ast.parse((TESTS / file).read_text())) if isinstance(node, ast.FunctionDef)
        }
        assert name in functions, held_by
