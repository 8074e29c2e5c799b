// Four routers as nc_mesh wires them, without cores: what the router's bench drives.
module routers (
    input  logic        clk,
    input  logic        rst,
    output logic        empty,
    input  logic [ 3:0] in_valid,
    input  logic [51:0] in_event,    // {y, x, axon} of each core's own event
    output logic [ 3:0] in_ready,
    output logic [ 3:0] out_valid,
    output logic [43:0] out_axon,
    input  logic [ 3:0] out_ready
);
  logic [3:0] empties, x_valid, y_valid, x_ready, y_ready;
  logic [51:0] x_event, y_event;
  assign empty = &empties;

  for (genvar i = 0; i < 4; i++) begin : node
    localparam int ACROSS = i ^ 1, DOWN = i ^ 2;
    nc_router #(
        .MY_X(1'(i % 2)),
        .MY_Y(1'(i / 2))
    ) router (
        .clk,
        .rst,
        .empty         (empties[i]),
        .core_in_valid (in_valid[i]),
        .core_in       (in_event[13*i+:13]),
        .core_in_ready (in_ready[i]),
        .core_out_valid(out_valid[i]),
        .core_out      (out_axon[11*i+:11]),
        .core_out_ready(out_ready[i]),
        .x_in_valid    (x_valid[i]),
        .x_in          (x_event[13*i+:13]),
        .x_in_ready    (x_ready[i]),
        .x_out_valid   (x_valid[ACROSS]),
        .x_out         (x_event[13*ACROSS+:13]),
        .x_out_ready   (x_ready[ACROSS]),
        .y_in_valid    (y_valid[i]),
        .y_in          (y_event[13*i+:13]),
        .y_in_ready    (y_ready[i]),
        .y_out_valid   (y_valid[DOWN]),
        .y_out         (y_event[13*DOWN+:13]),
        .y_out_ready   (y_ready[DOWN])
    );
  end
endmodule
