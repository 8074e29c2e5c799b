// nc_cobs_rx. Two receivers get the same bytes; one comes out of reset, the other out of any state whatever, as lost,
// changed and doubled bytes may leave it. From the first delimiter on that finds both rings empty they do the same.
module cobs_rx (
    input logic       clk,
    input logic       valid,
    input logic       broken,
    input logic [7:0] data
);
  logic running = 1'b0;
  always @(posedge clk) running <= 1'b1;

  logic [1:0] ready, frame, good, bad;
  logic [7:0] value_a, value_b;
  nc_cobs_rx #(
      .DEPTH(256)
  ) fresh (
      .clk, .rst(!running), .valid(valid && &ready), .broken, .data, .ready(ready[0]), .frame(frame[0]), .index(8'd0),
      .value(value_a), .drop(1'b0), .length(8'd0), .good(good[0]), .bad(bad[0])
  );
  nc_cobs_rx #(
      .DEPTH(256)
  ) lost (
      .clk, .rst(1'b0), .valid(valid && &ready), .broken, .data, .ready(ready[1]), .frame(frame[1]), .index(8'd0),
      .value(value_b), .drop(1'b0), .length(8'd0), .good(good[1]), .bad(bad[1])
  );

  // cobs_rx.sby connects these
  (* keep *) logic [8:0] base_a, base_b, head_a, head_b;
  (* keep *) logic [7:0] count_a, count_b, left_a, left_b;
  (* keep *) logic open_a, open_b, wrong_a, wrong_b;
  (* keep *) logic [31:0] crc_a, crc_b;
  (* keep *) logic [3:0] bits_a, bits_b;

  logic same;
  assign same = head_a - base_a == head_b - base_b && count_a == count_b && left_a == left_b && open_a == open_b
      && wrong_a == wrong_b && crc_a == crc_b && bits_a == bits_b;

  logic synced = 1'b0, told = 1'b0;
  logic [3:0] waiting = '0;
  always @(posedge clk) begin
    // the delimiter has been dealt with, both rings are empty, and no line error came with it
    if (running && valid && &ready && data == 8'd0 && !broken) told <= 1'b1;
    else told <= 1'b0;
    if (told && frame == 2'b00) synced <= 1'b1;
    waiting <= ready[0] ? 4'd0 : waiting + 4'd1;
    if (running) begin
      assume (bits_a <= 4'd8 && bits_b <= 4'd8);  // of the CRC, and so in every state that it can reach
      never_stuck : assert (waiting + bits_a <= 4'd8 || ready[0]);
    end
    if (synced) begin
      resynchronised : assert (same);
      said : assert (good[0] == good[1] && bad[0] == bad[1] || $past(told));
    end
    if (told && frame == 2'b00 && !broken) at_the_delimiter : assert (same || broken);
    lost_and_found : cover (synced && open_a && count_a == 8'd1);
    complained : cover (synced && bad == 2'b11);
  end
endmodule
