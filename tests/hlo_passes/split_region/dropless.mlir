// RUN: split-region{k=2} h100:1x2
// A dropless layer without drops to share: every part counts, sorts, tells and sends its own rows,
// into a buffer with room for all of them. The whole's places and tables are gone.
module @step attributes {mhlo.num_partitions = 2 : i32} {
  func.func public @main(%x: tensor<8x4xf32>, %w: tensor<4x4xf32>, %r: tensor<4x2xf32>) -> tensor<8x4xf32> {
    %zero = stablehlo.constant dense<0> : tensor<i32>
    %scores = stablehlo.dot_general %x, %r, contracting_dims = [1] x [0] : (tensor<8x4xf32>, tensor<4x2xf32>) -> tensor<8x2xf32>
    %best, %expert = chlo.top_k(%scores, k = 1) : tensor<8x2xf32> -> (tensor<8x1xf32>, tensor<8x1xi32>)
    %chosen = stablehlo.broadcast_in_dim %expert, dims = [0, 1] : (tensor<8x1xi32>) -> tensor<8x2xi32>
    %each = stablehlo.iota dim = 1 : tensor<8x2xi32>
    %is = stablehlo.compare EQ, %chosen, %each, SIGNED : (tensor<8x2xi32>, tensor<8x2xi32>) -> tensor<8x2xi1>
    %hot = stablehlo.convert %is : (tensor<8x2xi1>) -> tensor<8x2xi32>
    %upto = "stablehlo.reduce_window"(%hot, %zero) <{padding = dense<[[7, 0], [0, 0]]> : tensor<2x2xi64>, window_dimensions = array<i64: 8, 1>}> ({
    ^bb0(%a: tensor<i32>, %b: tensor<i32>):
      %sum = stablehlo.add %a, %b : tensor<i32>
      stablehlo.return %sum : tensor<i32>
    }) : (tensor<8x2xi32>, tensor<i32>) -> tensor<8x2xi32>
    %before = stablehlo.subtract %upto, %hot : tensor<8x2xi32>
    %own = stablehlo.multiply %before, %hot : tensor<8x2xi32>
    %rank = stablehlo.reduce(%own init: %zero) applies stablehlo.add across dimensions = [1] : (tensor<8x2xi32>, tensor<i32>) -> tensor<8xi32>
    %counts = stablehlo.reduce(%hot init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<8x2xi32>, tensor<i32>) -> tensor<2xi32>
    %ends = "stablehlo.reduce_window"(%counts, %zero) <{padding = dense<[[1, 0]]> : tensor<1x2xi64>, window_dimensions = array<i64: 2>}> ({
    ^bb0(%a: tensor<i32>, %b: tensor<i32>):
      %sum = stablehlo.add %a, %b : tensor<i32>
      stablehlo.return %sum : tensor<i32>
    }) : (tensor<2xi32>, tensor<i32>) -> tensor<2xi32>
    %first = stablehlo.subtract %ends, %counts : tensor<2xi32>
    %start = "stablehlo.gather"(%first, %expert) <{dimension_numbers = #stablehlo.gather<collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1>}> : (tensor<2xi32>, tensor<8x1xi32>) -> tensor<8xi32>
    %place = stablehlo.add %start, %rank : tensor<8xi32>
    %at = stablehlo.reshape %place : (tensor<8xi32>) -> tensor<8x1xi32>

    %row = stablehlo.reshape %counts : (tensor<2xi32>) -> tensor<1x2xi32>
    %every = "stablehlo.all_gather"(%row) <{all_gather_dim = 0 : i64, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> : (tensor<1x2xi32>) -> tensor<2x2xi32>
    %id = stablehlo.partition_id : tensor<ui32>
    %me = stablehlo.convert %id : (tensor<ui32>) -> tensor<i32>
    %until = "stablehlo.reduce_window"(%every, %zero) <{padding = dense<[[1, 0], [0, 0]]> : tensor<2x2xi64>, window_dimensions = array<i64: 2, 1>}> ({
    ^bb0(%a: tensor<i32>, %b: tensor<i32>):
      %sum = stablehlo.add %a, %b : tensor<i32>
      stablehlo.return %sum : tensor<i32>
    }) : (tensor<2x2xi32>, tensor<i32>) -> tensor<2x2xi32>
    %theirs = stablehlo.subtract %until, %every : tensor<2x2xi32>
    %sums = "stablehlo.reduce_window"(%every, %zero) <{padding = dense<[[0, 0], [1, 0]]> : tensor<2x2xi64>, window_dimensions = array<i64: 1, 2>}> ({
    ^bb0(%a: tensor<i32>, %b: tensor<i32>):
      %sum = stablehlo.add %a, %b : tensor<i32>
      stablehlo.return %sum : tensor<i32>
    }) : (tensor<2x2xi32>, tensor<i32>) -> tensor<2x2xi32>
    %starts = stablehlo.subtract %sums, %every : tensor<2x2xi32>
    %0 = stablehlo.dynamic_slice %theirs, %me, %zero, sizes = [1, 2] : (tensor<2x2xi32>, tensor<i32>, tensor<i32>) -> tensor<1x2xi32>
    %to = stablehlo.reshape %0 : (tensor<1x2xi32>) -> tensor<2xi32>
    %1 = stablehlo.dynamic_slice %every, %zero, %me, sizes = [2, 1] : (tensor<2x2xi32>, tensor<i32>, tensor<i32>) -> tensor<2x1xi32>
    %got = stablehlo.reshape %1 : (tensor<2x1xi32>) -> tensor<2xi32>
    %2 = stablehlo.dynamic_slice %theirs, %zero, %me, sizes = [2, 1] : (tensor<2x2xi32>, tensor<i32>, tensor<i32>) -> tensor<2x1xi32>
    %here = stablehlo.reshape %2 : (tensor<2x1xi32>) -> tensor<2xi32>
    %3 = stablehlo.dynamic_slice %starts, %zero, %me, sizes = [2, 1] : (tensor<2x2xi32>, tensor<i32>, tensor<i32>) -> tensor<2x1xi32>
    %home = stablehlo.reshape %3 : (tensor<2x1xi32>) -> tensor<2xi32>

    %near = stablehlo.constant dense<0.0> : tensor<8x4xf32>
    %far = stablehlo.constant dense<0.0> : tensor<16x4xf32>
    %sorted = "stablehlo.scatter"(%near, %at, %x) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>, unique_indices = true}> ({
    ^bb0(%a: tensor<f32>, %b: tensor<f32>):
      stablehlo.return %b : tensor<f32>
    }) : (tensor<8x4xf32>, tensor<8x1xi32>, tensor<8x4xf32>) -> tensor<8x4xf32>
    %came = stablehlo.custom_call @ragged_all_to_all(%sorted, %far, %first, %counts, %to, %got) {api_version = 4 : i32, backend_config = {channel_id = 1 : i64, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>}, mhlo.frontend_attributes = {lancet_skew = "1.5"}} : (tensor<8x4xf32>, tensor<16x4xf32>, tensor<2xi32>, tensor<2xi32>, tensor<2xi32>, tensor<2xi32>) -> tensor<16x4xf32>
    %done = stablehlo.dot_general %came, %w, contracting_dims = [1] x [0] : (tensor<16x4xf32>, tensor<4x4xf32>) -> tensor<16x4xf32>
    %back = stablehlo.custom_call @ragged_all_to_all(%done, %near, %here, %got, %home, %counts) {api_version = 4 : i32, backend_config = {channel_id = 1 : i64, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>}} : (tensor<16x4xf32>, tensor<8x4xf32>, tensor<2xi32>, tensor<2xi32>, tensor<2xi32>, tensor<2xi32>) -> tensor<8x4xf32>
    %y = "stablehlo.gather"(%back, %at) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 4>}> : (tensor<8x4xf32>, tensor<8x1xi32>) -> tensor<8x4xf32>
    return %y : tensor<8x4xf32>
  }
}
// CHECK-NOT: tensor<16x4xf32>
// CHECK: chlo.scan
// CHECK: "stablehlo.scatter"(
// CHECK: "stablehlo.scatter"(
// CHECK: %[[COUNTS:[0-9]+]] = stablehlo.reduce({{.*}}applies stablehlo.add across dimensions = [0] : (tensor<4x2xi32>, tensor<i32>) -> tensor<2xi32>
// CHECK: "stablehlo.all_gather"
// CHECK: stablehlo.custom_call @ragged_all_to_all({{.*}}%[[COUNTS]], {{.*}}lancet_skew = "1.5"{{.*}} -> tensor<8x4xf32>
// CHECK: "stablehlo.all_gather"
// CHECK: stablehlo.custom_call @ragged_all_to_all({{.*}}lancet_skew = "1.5"{{.*}} -> tensor<8x4xf32>
// CHECK: stablehlo.dot_general {{.*}} (tensor<8x4xf32>, tensor<4x4xf32>) -> tensor<8x4xf32>
// CHECK: stablehlo.dot_general {{.*}} (tensor<8x4xf32>, tensor<4x4xf32>) -> tensor<8x4xf32>
// CHECK: stablehlo.custom_call @ragged_all_to_all({{.*}} -> tensor<4x4xf32>
// CHECK: stablehlo.custom_call @ragged_all_to_all({{.*}} -> tensor<4x4xf32>
// CHECK-NOT: stablehlo.custom_call
